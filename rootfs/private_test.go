package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mount(2) would cut its options off, and mount other layers.
func TestOptionsLongerThanPage(t *testing.T) {
	requireRoot(t)
	dir := filepath.Join(tmpfs(t), "x")
	s := newSnapshot(t, dir, 2)
	for i := range 30 {
		long := filepath.Join(dir, fmt.Sprint(i)+strings.Repeat("x", 200), "fs")
		must(t, os.MkdirAll(long, 0o755))
		s.lowers = append(s.lowers, long)
	}
	unchanged(t)
	_, err := Assemble(t.Context(), []Mount{s.mount()}, Options{Tier: OptionString})
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "4095") {
		t.Errorf("got %v", err)
	}
	if bestTier(t) == OptionString {
		return
	}
	tree := assemble(t, Options{}, s.mount())
	if tree.Stats().Layers != 32 {
		t.Errorf("stats %+v", tree.Stats())
	}
}

// The way that kernels before 6.15 need to add to a tree.
func TestJoinPrivately(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	var workshop Workshop
	defer workshop.Close()
	a := &assembly{ctx: t.Context(), workshop: &workshop}
	r := &request{Mount: Mount{Type: "tmpfs", Target: "a"}}
	root, err := a.mountFilesystem(r)
	must(t, err)
	must(t, unix.Mkdirat(root, "a", 0o755))
	below, err := a.mountFilesystem(r)
	must(t, err)
	must(t, unix.Mkdirat(below, "b", 0o755))
	joined, err := a.joinPrivately(r, root, below)
	must(t, err)
	for _, fd := range []int{root, below} {
		a.close(fd)
	}
	defer a.close(joined)
	dir, err := a.openDir(joined, "a/b", 0)
	must(t, err)
	a.close(dir)
}

// Without a private namespace there is only the host.
func TestNoWorkshop(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	var workshop Workshop
	workshop.remember(Detached)
	must(t, workshop.Close())
	s := newSnapshot(t, tmpfs(t), 3)
	o := Options{Workshop: &workshop}
	if _, err := Assemble(t.Context(), []Mount{s.mount()}, o); !errors.Is(err, ErrUnsupported) || !errors.Is(err, errWorkshopClosed) {
		t.Errorf("got %v", err)
	}
	o.Target = t.TempDir()
	tree, err := Assemble(t.Context(), []Mount{s.mount()}, o)
	must(t, err)
	if tree.Host() != o.Target || tree.Stats().Tier != Host {
		t.Errorf("host %q, stats %+v", tree.Host(), tree.Stats())
	}
	must(t, Detach(tree.Host()))
	must(t, tree.Close())
}
