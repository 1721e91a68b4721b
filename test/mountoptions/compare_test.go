package mountoptions

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/rootfs"
	"containerd-shim-numa-v1/test/rig"
)

// TestMain runs the tests in a mount namespace of their own. A fuzzer's worker
// is in one already.
func TestMain(m *testing.M) {
	flag.Parse()
	if worker := flag.Lookup("test.fuzzworker"); worker == nil || worker.Value.String() != "true" {
		switch _, err := rig.Isolate(); {
		case errors.Is(err, rig.ErrNotRoot):
			fmt.Println("mountoptions: all tests skipped:", err)
			os.Exit(0)
		case err != nil:
			fmt.Fprintln(os.Stderr, "mountoptions:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// site is where both mount.
type site struct {
	dir string
	n   int // directories made
}

func newSite(t testing.TB) *site {
	s := &site{dir: t.TempDir()}
	if err := unix.Mount("tmpfs", s.dir, "tmpfs", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"1", "2", "3"} {
		if err := os.MkdirAll(filepath.Join(s.dir, "layers", name, "fs"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// fresh makes a directory.
func (s *site) fresh(t testing.TB) string {
	s.n++
	dir := filepath.Join(s.dir, fmt.Sprint("d", s.n))
	for _, sub := range []string{"fs", "work", "target"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// shown is what the kernel shows of a mount.
type shown struct {
	mount  string // its own options
	kind   string // file system type
	super  []string
	failed error
}

// mountFunc mounts m on the directory target.
type mountFunc func(m mount.Mount, target string) error

// asContainerd is what the runc shim does.
func asContainerd(m mount.Mount, target string) error { return m.Mount(target) }

// asShim is what this project does, in the best tier.
func asShim(m mount.Mount, target string) error {
	tree, err := rootfs.Assemble(context.Background(), []rootfs.Mount{{Type: m.Type, Source: m.Source, Options: m.Options}}, rootfs.Options{})
	if err != nil {
		return err
	}
	return errors.Join(tree.Attach(target), tree.Close())
}

// try mounts m in directories of its own, for which $ stands, and unmounts it.
func (s *site) try(t testing.TB, m mount.Mount, how mountFunc) shown {
	t.Helper()
	dir := s.fresh(t)
	defer os.RemoveAll(dir)
	m.Options = slices.Clone(m.Options)
	for i, o := range m.Options {
		m.Options[i] = strings.NewReplacer("$own", dir, "$layers", filepath.Join(s.dir, "layers")).Replace(o)
	}
	m.Source = strings.ReplaceAll(m.Source, "$layers", filepath.Join(s.dir, "layers"))
	target := filepath.Join(dir, "target")
	err := how(m, target)
	got := lookUp(t, target)
	if got.kind != "" {
		if err := unix.Unmount(target, 0); err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
	}
	if err != nil {
		return shown{failed: err}
	}
	for i, o := range got.super {
		got.super[i] = strings.ReplaceAll(o, dir, "$own")
	}
	return got
}

// lookUp reads the mount table (proc_pid_mountinfo(5)). Names of layers are left
// out: the shim gives them to overlayfs relative to a clone.
func lookUp(t testing.TB, target string) (s shown) {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		dash := slices.Index(fields, "-")
		if fields[4] != target {
			continue
		}
		s.mount, s.kind = fields[5], fields[dash+1]
		s.super = slices.DeleteFunc(strings.Split(fields[dash+3], ","), func(o string) bool {
			return strings.HasPrefix(o, "lowerdir") || strings.HasPrefix(o, "datadir")
		})
	}
	return s
}

// lenient reports whether the shim takes an option that containerd passes to
// the kernel, which does not know it in mount(2)'s data: "defaults", the flags
// that containerd's table lacks, and several options in one string, all of
// which mount(8) takes. And containerd cannot map data-only layers, since it
// cuts the list at each colon.
func lenient(options []string) bool {
	return slices.ContainsFunc(options, func(o string) bool {
		return slices.Contains([]string{"defaults", "nosymfollow", "symfollow"}, o) || strings.Contains(o, ",") ||
			strings.HasPrefix(o, "lowerdir=") && strings.Contains(o, "::") && slices.ContainsFunc(options, isMapping)
	})
}

func isMapping(o string) bool { return strings.HasPrefix(o, "uidmap=") }

// strict says why the shim refuses, or does differently, what containerd lets
// pass; "" if it has no reason.
func strict(m mount.Mount) string {
	last, times := map[string]string{}, map[string]int{}
	isBind, others := m.Type == "bind", false
	for _, o := range m.Options {
		key, value, _ := strings.Cut(o, "=")
		last[key], times[key] = value, times[key]+1
		isBind = isBind || key == "bind" || key == "rbind"
		others = others || !slices.Contains([]string{"bind", "rbind", "ro", "rw", ""}, o)
		switch {
		case key == "" && o != "":
			return "an option without a name, which the kernel passes over"
		case key == "lowerdir" && (strings.HasPrefix(value, "relative") || strings.Contains(value, "..")):
			return "a layer whose meaning would depend on the working directory, or that leaves its directory"
		}
	}
	switch {
	case times["remount"] > 0:
		return "there is nothing to remount: containerd mounts nothing, or fails"
	case (last["uidmap"] == "") != (last["gidmap"] == ""):
		return "half a mapping, which containerd leaves out without a word"
	case times["lowerdir"] > 0 && times["lowerdir+"]+times["datadir+"] > 0:
		return "layers given in both ways, of which the kernel takes the list if it is last and none if not"
	case times["workdir"] > 0 && times["upperdir"] == 0:
		return "a work directory without an upper one, which overlayfs passes over"
	case times["lowerdir"] > 1, times["upperdir"] > 1, times["workdir"] > 1:
		return "a directory given twice, of which the kernel takes the last"
	case isBind && others:
		return "what comes with a bind mount the kernel passes over, but for ro and what comes with that; the shim obeys it"
	}
	return ""
}

// compare fails the test where the shim and containerd do not agree about m.
func (s *site) compare(t testing.TB, m mount.Mount) {
	t.Helper()
	theirs, ours := s.try(t, m, asContainerd), s.try(t, m, asShim)
	switch {
	case strict(m) != "":
	case theirs.failed != nil && ours.failed == nil && !lenient(m.Options):
		t.Errorf("%s %q: containerd: %v; the shim mounts %+v", m.Type, m.Options, theirs.failed, ours)
	case theirs.failed == nil && ours.failed != nil:
		t.Errorf("%s %q: containerd mounts %+v; the shim: %v", m.Type, m.Options, theirs, ours.failed)
	case theirs.failed == nil && (theirs.mount != ours.mount || theirs.kind != ours.kind || !slices.Equal(theirs.super, ours.super)) && !lenient(m.Options):
		t.Errorf("%s %q:\ncontainerd mounts %+v\nthe shim          %+v", m.Type, m.Options, theirs, ours)
	}
}
