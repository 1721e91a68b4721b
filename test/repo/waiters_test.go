package repo

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestNobodyWaitsForAnyChild holds docs/decisions/no-reaper.md: no part of the
// product waits for whichever child exits, which would take the exit of a child
// that another part, libcontainer or the standard library, waits for.
func TestNobodyWaitsForAnyChild(t *testing.T) {
	found := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path == filepath.Join(root, "test"):
			return filepath.SkipDir // of the rig's processes one is a namespace's init
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || (f.Sel.Name != "Wait4" && f.Sel.Name != "Waitid") {
				return true
			}
			found++
			if !namesOneChild(f.Sel.Name, call.Args[0]) {
				t.Errorf("%s: %s does not name the one child that it waits for", set.Position(call.Pos()), f.Sel.Name)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("no wait was found: this test looks at the wrong files")
	}
}

// namesOneChild tells whether the first argument of wait4(2) is not a number,
// -1 or 0, which stand for any child, and that of waitid(2) a kind that names
// one.
func namesOneChild(call string, arg ast.Expr) bool {
	if call == "Wait4" {
		switch arg.(type) {
		case *ast.Ident, *ast.SelectorExpr:
			return true
		}
		return false
	}
	kind, ok := arg.(*ast.SelectorExpr)
	return ok && (kind.Sel.Name == "P_PID" || kind.Sel.Name == "P_PIDFD")
}
