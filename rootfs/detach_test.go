package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAttachDetach(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	s := newSnapshot(t, tmpfs(t), 3)
	must(t, os.Mkdir(filepath.Join(s.lowers[0], "data"), 0o755))
	target := t.TempDir()
	for _, busy := range []bool{false, true} {
		before := mountTable(t)
		tree := assemble(t, Options{}, s.mount(), Mount{Type: "tmpfs", Source: "tmpfs", Target: "data"})
		must(t, tree.Attach(target))
		if tree.file != nil || tree.Stats().Attached != 1 {
			t.Errorf("after Attach: file %v, %+v", tree.file, tree.Stats())
		}
		if err := tree.Attach(target); !errors.Is(err, errNoTree) {
			t.Errorf("second Attach: %v", err)
		}
		if _, err := tree.Handover(target); !errors.Is(err, errNoTree) {
			t.Errorf("Handover after Attach: %v", err)
		}
		if busy {
			f, err := os.Open(filepath.Join(target, "top"))
			must(t, err)
			defer f.Close()
		}
		must(t, Detach(target))
		must(t, Detach(target))
		if got := mountTable(t); got != before {
			t.Errorf("busy=%v: mount table\n%s\nwant\n%s", busy, got, before)
		}
		if _, err := os.Stat(filepath.Join(s.lowers[2], "top")); err != nil {
			t.Error(err)
		}
	}
}

func TestDetachStack(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	target := t.TempDir()
	for range 3 {
		must(t, unix.Mount("tmpfs", target, "tmpfs", 0, ""))
	}
	must(t, Detach(target))
}

func TestDetachNothing(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	dir := t.TempDir()
	below := filepath.Join(dir, "below")
	must(t, os.Mkdir(below, 0o755))
	must(t, unix.Mount("tmpfs", below, "tmpfs", 0, ""))
	defer func() { must(t, Detach(below)) }()
	write(t, filepath.Join(dir, "file"), "kept", 0, 0o600)
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(below, link))
	for _, target := range []string{dir, filepath.Join(dir, "missing"), filepath.Join(dir, "file"), filepath.Join(dir, "file", "x"), link} {
		if err := Detach(target); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	if mounted, err := isMountRoot(below); err != nil || !mounted {
		t.Errorf("a mount below, or behind a link, went away: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
		t.Error(err)
	}
	for _, target := range []string{"", "/", "relative", "/.."} {
		if err := Detach(target); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", target, err)
		}
	}
}

func TestAttachBadTarget(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	tree := assemble(t, Options{}, Mount{Type: "tmpfs", Source: "tmpfs"})
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(t.TempDir(), link))
	for _, target := range []string{"relative", "/nonexistent", "/dev/null", link} {
		if err := tree.Attach(target); err == nil {
			t.Errorf("attached to %s", target)
			must(t, Detach(target))
		}
	}
	if tree.file == nil {
		t.Error("a failed Attach released the tree")
	}
}
