package rig

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// layeredRoot is the directory in which LayeredImage's layers change things.
const layeredRoot = "data/"

// Tree is what a container must see below /data: path to the line that the
// payload's tree command prints for it.
type Tree map[string]string

// LayeredImage returns n layers above base. Each adds a file of its own owner,
// rewrites one that every layer writes, deletes the file added two layers
// below, and every tenth replaces a whole directory by an opaque one; so each
// layer matters to what a container sees, which is the returned Tree.
func LayeredImage(base Layer, n int) ([]Layer, Tree) {
	layers := []Layer{base}
	tree := Tree{}
	set := func(l *Layer, f File) {
		*l = append(*l, f)
		tree[strings.TrimPrefix(f.Name, layeredRoot)] = fmt.Sprintf("%d:%d %04o %s", f.UID, f.GID, f.Mode, f.Data)
	}
	for i := 1; i <= n; i++ {
		l := Layer{{Name: layeredRoot, Mode: 0o755}}
		own := File{Name: fmt.Sprintf("%sadded-%03d", layeredRoot, i), UID: i, GID: 1000 + i, Mode: 0o644, Data: fmt.Appendf(nil, "layer %d", i)}
		set(&l, own)
		set(&l, File{Name: layeredRoot + "shared", UID: i, GID: i, Mode: int64(0o600 | i%2*0o044), Data: fmt.Appendf(nil, "written last by %d", i)})
		if gone := fmt.Sprintf("added-%03d", i-2); i%3 == 0 && tree[gone] != "" {
			l = append(l, File{Name: layeredRoot + ".wh." + gone, Mode: 0o644})
			delete(tree, gone)
		}
		l = append(l, File{Name: layeredRoot + "dir/", UID: 7, GID: 7, Mode: 0o750})
		if i%10 == 0 {
			l = append(l, File{Name: layeredRoot + "dir/.wh..wh..opq", Mode: 0o644})
			maps.DeleteFunc(tree, func(name, _ string) bool { return strings.HasPrefix(name, "dir/") })
		}
		set(&l, File{Name: fmt.Sprintf("%sdir/%03d", layeredRoot, i), UID: 65534, GID: 65534, Mode: 0o600, Data: fmt.Appendf(nil, "%d", i)})
		layers = append(layers, l)
	}
	return layers, tree
}

// String renders the tree as the payload's tree command prints it.
func (t Tree) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(&b, "%s %s\n", name, t[name])
	}
	return b.String()
}
