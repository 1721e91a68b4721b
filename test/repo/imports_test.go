package repo

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "containerd-shim-numa-v1"

// root is the repository, as seen from this package.
const root = "../.."

// allowed are the packages of this module that each of them may import.
var allowed = map[string][]string{
	"cgroups":                     {"numa/cpuset"},
	"cmd/containerd-shim-numa-v1": {"numa/ledger", "rootfs", "shim", "task", "task/external", "task/native"},
	"cmd/numashim":                {"cgroups", "numa/cpuset", "numa/ledger"},
	"numa":                        {"numa/cpuset", "numa/private"},
	"numa/cpuset":                 {},
	"numa/ledger":                 {"numa", "numa/cpuset", "numa/private"},
	"numa/machines":               {"numa/cpuset"},
	"numa/memory":                 {"numa/cpuset"},
	"numa/private":                {},
	"rootfs":                      {},
	"shim":                        {},
	"task":                        {"cgroups", "numa/cpuset", "rootfs", "task/placement"},
	"task/children":               {},
	"task/enginetest":             {"task"},
	"task/external":               {"cgroups", "task", "task/children"},
	"task/native":                 {"numa/cpuset", "task", "task/children"},
	"task/placement":              {"cgroups", "numa", "numa/cpuset", "numa/ledger", "numa/memory"},
}

// libcontainerUsers are the only packages that may import libcontainer.
var libcontainerUsers = []string{"cmd/containerd-shim-numa-v1", "task/native"}

// imports are the direct imports of each package of the product.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out := goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	all := map[string][]string{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		all[strings.TrimPrefix(fields[0], module+"/")] = fields[1:]
	}
	return all
}

func goList(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-tags", tags}, args...)...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return string(out)
}

func TestImportsRunOneWay(t *testing.T) {
	for pkg, list := range imports(t) {
		may, ok := allowed[pkg]
		if !ok {
			t.Errorf("package %s is not in the list of this test", pkg)
		}
		for _, i := range list {
			if own, ok := strings.CutPrefix(i, module+"/"); ok && !slices.Contains(may, own) {
				t.Errorf("%s imports %s", pkg, own)
			}
			if strings.HasPrefix(i, "github.com/opencontainers/runc/") && !slices.Contains(libcontainerUsers, pkg) {
				t.Errorf("%s imports %s", pkg, i)
			}
			if strings.HasPrefix(i, "github.com/containerd/containerd/v2") {
				t.Errorf("%s imports containerd itself", pkg)
			}
		}
	}
}
