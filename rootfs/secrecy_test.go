package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// playScanner is a container's init that looks for a way to the host's layers:
// in its descriptors, in its mount table, through its root directory.
func playScanner(args []string) error {
	if err := AttachInherited(); err != nil {
		return err
	}
	root, secret := args[0], args[1]
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		var st unix.Stat_t
		if err != nil || unix.Stat("/proc/self/fd/"+e.Name(), &st) != nil {
			continue // the descriptor of this list
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR && link != "/proc/"+fmt.Sprint(os.Getpid())+"/fd" {
			fmt.Printf("descriptor %s is the directory %s\n", e.Name(), link)
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("umount2: %w", err)
	}
	return filepath.WalkDir("/", func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == secret {
			fmt.Printf("found %s\n", path)
		}
		return nil
	})
}

// Inits that start while clones of the layers' directory come and go inherit
// none of them, and see no other image's layer.
func TestCloneIsOutOfReach(t *testing.T) {
	requireRoot(t)
	dir := tmpfs(t)
	s := newSnapshot(t, dir, 5)
	other := filepath.Join(dir, "other")
	must(t, os.Mkdir(other, 0o755))
	write(t, filepath.Join(other, "secret"), "", 33, 0o644)
	var cache UserNSCache
	defer cache.Close()
	ended := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		m := s.fresh(t, true)
		wg.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				tree, err := Assemble(t.Context(), []Mount{m}, Options{Cache: &cache})
				if err != nil {
					t.Error(err)
					return
				}
				tree.Close()
			}
		})
	}
	defer wg.Wait()
	defer close(ended)
	root := t.TempDir()
	for range 20 {
		tree := assemble(t, Options{Cache: &cache}, s.fresh(t, true))
		files, err := tree.Handover(root)
		must(t, err)
		cmd := play("scanner", root, "secret")
		cmd.ExtraFiles = files
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		// Not standard error: there a program that counts its coverage says
		// that the directory for that is out of reach as well.
		var complaints strings.Builder
		cmd.Stderr = &complaints
		out, err := cmd.Output()
		if err != nil || len(out) != 0 {
			t.Fatalf("%v: %s%s", err, out, complaints.String())
		}
		must(t, tree.Close())
	}
}

// What is attached in the private namespace is in no other one, and the
// namespace has nothing of the host's.
func TestWorkshopIsPrivate(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	// As on a host: whatever is mounted propagates.
	shared := tmpfs(t)
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
	defer func() { must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")) }()
	s := newSnapshot(t, shared, 3)
	var w Workshop
	defer w.Close()
	before := mountTable(t)
	var c calls
	must(t, w.inside(&c, func() error {
		table, err := os.ReadFile("/proc/thread-self/mountinfo")
		if err == nil {
			return fmt.Errorf("the namespace has a proc: %s", table)
		}
		entries, err := os.ReadDir("/")
		if err != nil || len(entries) != 3 {
			return fmt.Errorf("%v in the namespace: %v", entries, err)
		}
		return unix.Mount("tmpfs", rootDir, "tmpfs", 0, "")
	}))
	must(t, w.inside(&c, func() error {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, rootDir, 0, 0, &st)
		if err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			err = fmt.Errorf("%s is still a mount", rootDir)
		}
		return err
	}))
	assemble(t, Options{Tier: OptionString, Workshop: &w}, s.idmapped(t))
	if got := mountTable(t); got != before {
		t.Errorf("mount table changed:\n%s\nwas\n%s", got, before)
	}
}

func TestWorkshopClosed(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	s := newSnapshot(t, tmpfs(t), 2)
	var w Workshop
	must(t, w.Close())
	_, err := Assemble(t.Context(), []Mount{s.mount()}, Options{Tier: Names, Workshop: &w})
	if err == nil || !strings.Contains(err.Error(), errWorkshopClosed.Error()) {
		t.Errorf("got %v", err)
	}
}

// A host with many mounts costs an assembly nothing, and stays as it is.
func TestHostTable(t *testing.T) {
	eachTier(t, func(t *testing.T, o Options) {
		var want Stats
		for _, entries := range []int{0, 1000} {
			fillTable(t, entries)
			s := newSnapshot(t, tmpfs(t), 10)
			before := mountTable(t)
			tree := assemble(t, o, s.idmapped(t))
			if o.Tier != Host && mountTable(t) != before {
				t.Error("mount table changed")
			}
			got := tree.Stats()
			got.Duration, got.UserNS = 0, 0
			if entries == 0 {
				want = got
			}
			if got != want {
				t.Errorf("%+v beside %d mounts, %+v beside none", got, entries, want)
			}
			inside(t, tree, func(root string) error { _, err := os.Stat(filepath.Join(root, "top")); return err })
			if got := mountTable(t); got != before {
				t.Error("mount table changed in the end")
			}
		}
	})
}
