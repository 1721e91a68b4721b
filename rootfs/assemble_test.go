package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOverlay(t *testing.T) {
	requireRoot(t)
	for _, fs := range []string{"tmpfs", "temporary directory"} {
		for _, mapped := range []bool{false, true} {
			for _, n := range []int{1, 2, 50, 120} {
				t.Run(fmt.Sprintf("%s/mapped=%v/%d", fs, mapped, n), func(t *testing.T) {
					dir := t.TempDir()
					if fs == "tmpfs" {
						dir = tmpfs(t)
					}
					testOverlay(t, newSnapshot(t, dir, n), n, mapped)
				})
			}
		}
	}
}

func testOverlay(t *testing.T, s *snapshot, n int, mapped bool) {
	if n > 1 { // the topmost layer deletes a file and replaces a directory
		must(t, unix.Mknod(filepath.Join(s.lowers[0], "deleted"), unix.S_IFCHR, 0))
		must(t, os.Mkdir(filepath.Join(s.lowers[0], "dir"), 0o755))
		must(t, unix.Setxattr(filepath.Join(s.lowers[0], "dir"), "trusted.overlay.opaque", []byte("y"), 0))
	}
	var base uint32
	m := s.mount()
	if mapped {
		base, m = testRoot, s.idmapped(t)
	}
	cache := &UserNSCache{}
	t.Cleanup(func() { must(t, cache.Close()) })
	if mapped { // so that the cache's own descriptor is not a leak
		ids, err := ParseIDMap(testMap, testMap)
		must(t, err)
		f, err := cache.Get(t.Context(), ids)
		must(t, err)
		must(t, f.Close())
	}
	// The lower layers; where they must be attached, the upper one too; what
	// mount(2) has mounted.
	clones := map[Tier]int{Detached: 1, Descriptors: 2, Names: 2, OptionString: 3}
	workshop := usedWorkshop(t)
	unchanged(t)
	tree := assemble(t, Options{Cache: cache, Workshop: workshop}, m)
	if got := tree.Stats(); got.Layers != n || got.Mounts != 1 || got.Attached != 0 || mapped && got.Clones != clones[got.Tier] || got.Tier != bestTier(t) {
		t.Errorf("stats %+v", got)
	}
	inside(t, tree, func(root string) error {
		top, err := os.ReadFile(filepath.Join(root, "top"))
		if err != nil || string(top) != strconv.Itoa(n) {
			t.Errorf("top is %q (%v), want %d", top, err, n)
		}
		for i := 1; i <= n; i++ {
			if uid, err := owner(filepath.Join(root, "layer"+strconv.Itoa(i))); err != nil || uid != base+33 {
				t.Errorf("layer%d belongs to %d (%v), want %d", i, uid, err, base+33)
			}
		}
		wantNobody := uint32(70000)
		if mapped {
			wantNobody = 65534
		}
		if uid, err := owner(filepath.Join(root, "nobody")); err != nil || uid != wantNobody {
			t.Errorf("unmapped owner %d (%v), want %d", uid, err, wantNobody)
		}
		for _, gone := range []string{"deleted", "dir/hidden"} {
			if _, err := os.Lstat(filepath.Join(root, gone)); (n > 1) != errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", gone, err)
			}
		}
		return os.WriteFile(filepath.Join(root, "layer1"), []byte("copied up"), 0)
	})
	if uid, err := owner(filepath.Join(s.upper, "layer1")); err != nil || uid != base+33 {
		t.Errorf("copied up file belongs to %d on disk (%v), want %d", uid, err, base+33)
	}
	if b, err := os.ReadFile(filepath.Join(s.lowers[n-1], "layer1")); err != nil || len(b) != 0 {
		t.Errorf("lower file is %q now (%v)", b, err)
	}
}

// Without setuid and devices the flags of the clone would change what a
// container sees.
func TestOverlaySetuidAndDevices(t *testing.T) {
	requireRoot(t)
	id, err := exec.LookPath("id")
	if err != nil {
		t.Skipf("no program to try: %v", err)
	}
	program, err := os.ReadFile(id)
	must(t, err)
	for _, extra := range []string{"", "nosuid"} {
		s := newSnapshot(t, tmpfs(t), 3)
		write(t, filepath.Join(s.lowers[2], "id"), string(program), 0, 0o755|os.ModeSetuid)
		must(t, unix.Mknod(filepath.Join(s.lowers[2], "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		tree := assemble(t, Options{}, s.idmapped(t, strings.Fields(extra)...))
		inside(t, tree, func(root string) error {
			must(t, os.Chmod(filepath.Dir(root), 0o755))
			must(t, os.Chmod(filepath.Dir(filepath.Dir(root)), 0o755))
			// Not exec.Cmd: it may fork from another thread, elsewhere.
			pipe := make([]int, 2)
			if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
				return err
			}
			pid, err := syscall.ForkExec(filepath.Join(root, "id"), []string{"id", "-u"}, &syscall.ProcAttr{
				Files: []uintptr{0, uintptr(pipe[1]), 2},
				Sys:   &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: testRoot + 1000, Gid: testRoot + 1000}},
			})
			unix.Close(pipe[1])
			out := make([]byte, 32)
			n, _ := unix.Read(pipe[0], out)
			unix.Close(pipe[0])
			if err != nil {
				return err
			}
			var status unix.WaitStatus
			if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
				return err
			}
			want := strconv.Itoa(testRoot)
			if extra == "nosuid" {
				want = strconv.Itoa(testRoot + 1000)
			}
			if got := string(bytes.TrimSpace(out[:max(n, 0)])); got != want {
				t.Errorf("%q: setuid program runs as %q, want %s", extra, got, want)
			}
			fd, err := unix.Open(filepath.Join(root, "null"), unix.O_WRONLY, 0)
			if err != nil {
				return fmt.Errorf("device of a lower layer: %w", err)
			}
			return unix.Close(fd)
		})
	}
}

// A layer that is a mount point shows, through a clone of the directory above
// it, the empty directory underneath.
func TestOverlayLayersOnOtherMounts(t *testing.T) {
	requireRoot(t)
	for _, mapped := range []bool{false, true} {
		a, b := tmpfs(t), tmpfs(t)
		s := newSnapshot(t, a, 3)
		mountOver(t, s.lowers[1])
		write(t, filepath.Join(s.lowers[1], "over"), "mounted", 7, 0o644)
		far := filepath.Join(b, "far")
		must(t, os.Mkdir(far, 0o755))
		write(t, filepath.Join(far, "far"), "away", 8, 0o644)
		s.lowers = append(s.lowers, far)
		m, base := s.mount(), uint32(0)
		if mapped {
			m, base = s.idmapped(t), testRoot
		}
		inside(t, assemble(t, Options{}, m), func(root string) error {
			for name, uid := range map[string]uint32{"over": 7, "far": 8, "layer1": 33} {
				if got, err := owner(filepath.Join(root, name)); err != nil || got != base+uid {
					t.Errorf("mapped=%v: %s belongs to %d (%v), want %d", mapped, name, got, err, base+uid)
				}
			}
			return nil
		})
		must(t, unix.Unmount(s.lowers[1], 0))
	}
}

// Layers that share nothing but / must not make it clone /.
func TestOverlayLayersWithoutCommonParent(t *testing.T) {
	requireRoot(t)
	const elsewhere = "/run" // any directory that systems have
	mountOver(t, elsewhere)
	defer func() { must(t, unix.Unmount(elsewhere, unix.MNT_DETACH)) }()
	must(t, os.Mkdir(elsewhere+"/far", 0o755))
	write(t, elsewhere+"/far/far", "", 8, 0o644)
	for _, mapped := range []bool{false, true} {
		s := newSnapshot(t, tmpfs(t), 2)
		s.lowers = append(s.lowers, elsewhere+"/far")
		m, base, clones := s.mount(), uint32(0), 0
		if mapped {
			m, base, clones = s.idmapped(t), testRoot, 3
		}
		tree := assemble(t, Options{}, m)
		if got := tree.Stats(); got.Tier == Detached && got.Clones != clones || got.Layers != 3 {
			t.Errorf("stats %+v", got)
		}
		inside(t, tree, func(root string) error {
			for name, uid := range map[string]uint32{"far": 8, "layer1": 33} {
				if got, err := owner(filepath.Join(root, name)); err != nil || got != base+uid {
					t.Errorf("mapped=%v: %s belongs to %d (%v), want %d", mapped, name, got, err, base+uid)
				}
			}
			return nil
		})
	}
}

// Names in a data-only layer do not show.
func TestOverlayDataOnlyLayer(t *testing.T) {
	requireRoot(t)
	if !slices.Contains(tiers(t), Names) {
		t.Skip("data-only layers need Linux 6.5")
	}
	s := newSnapshot(t, tmpfs(t), 2)
	m := s.mount("metacopy=on")
	m.Options[2] = "lowerdir=" + s.lowers[0] + "::" + s.lowers[1]
	inside(t, assemble(t, Options{}, m), func(root string) error {
		if _, err := os.Stat(filepath.Join(root, "layer1")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a data-only layer's file: %v", err)
		}
		_, err := os.Stat(filepath.Join(root, "layer2"))
		return err
	})
}

func TestOverlayNamesAndOptions(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	dir := filepath.Join(tmpfs(t), `a:b\c,d "e`+strings.Repeat("long", 40), strings.Repeat("x", 200))
	s := newSnapshot(t, dir, 2)
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace
	for i := range s.lowers {
		s.lowers[i] = strings.ReplaceAll(escape(s.lowers[i]), `"`, `\"`)
	}
	upper := s.upper
	s.upper, s.work = strings.ReplaceAll(escape(s.upper), `"`, `\"`), strings.ReplaceAll(escape(s.work), `"`, `\"`)
	inside(t, assemble(t, Options{}, s.mount("index=off", "xino=off", "volatile", "noatime,nosuid", "nodev")), func(root string) error {
		var st unix.Statfs_t
		must(t, unix.Statfs(root, &st))
		const want = unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOATIME
		if st.Flags&want != want {
			t.Errorf("mount flags %x", st.Flags)
		}
		return os.WriteFile(filepath.Join(root, "new"), nil, 0o600)
	})
	if _, err := os.Stat(filepath.Join(upper, "new")); err != nil {
		t.Error(err)
	}
	_, err := Assemble(t.Context(), []Mount{s.mount("volatile", "index=off")}, Options{})
	if err == nil || !strings.Contains(err.Error(), "volatile") || errors.Is(err, ErrUnsupported) {
		t.Errorf("second volatile mount: %v", err)
	}
}

func TestReadOnlyView(t *testing.T) {
	requireRoot(t)
	s := newSnapshot(t, tmpfs(t), 3)
	view := Mount{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + strings.Join(s.lowers, ":")}}
	for name, m := range map[string]Mount{
		"overlay without upper": view,
		"overlay ro":            s.mount("ro"),
		"bind ro":               {Type: "bind", Source: s.lowers[2], Options: []string{"rbind", "ro"}},
	} {
		inside(t, assemble(t, Options{}, m), func(root string) error {
			if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: write: %v", name, err)
			}
			_, err := os.Stat(filepath.Join(root, "nobody"))
			return err
		})
	}
}

// What is cloned for overlayfs must be harmless even if it were reachable.
func TestClone(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	ns, err := newUserNS(mapping(t, testMap, testMap))
	must(t, err)
	l := &layers{assembly: &assembly{ctx: t.Context()}, userNS: ns}
	defer l.release(false)
	dir, err := l.openDir(unix.AT_FDCWD, tmpfs(t), 0)
	must(t, err)
	defer l.close(dir)
	clone, err := l.clone(dir, 0)
	must(t, err)
	var st unix.Statfs_t
	must(t, unix.Fstatfs(clone, &st))
	const want = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV
	if st.Flags&want != want {
		t.Errorf("flags %#x", st.Flags)
	}
	fs, err := l.fsopen("tmpfs")
	must(t, err)
	defer l.close(fs)
	must(t, l.create(fs))
	mount, err := l.fsmount(fs, 0)
	must(t, err)
	defer l.close(mount)
	memfd, err := sealedFile("test", "content")
	must(t, err)
	defer memfd.Close()
	copied, err := duplicate(ns)
	must(t, err)
	defer copied.Close()
	for name, fd := range map[string]int{
		"directory": dir, "clone": clone, "context": fs, "mount": mount,
		"memfd": int(memfd.Fd()), "namespace": int(ns.Fd()), "its copy": int(copied.Fd()),
	} {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s is inherited by every program: %v", name, err)
		}
	}
}

func TestMountsBelowTheRoot(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	s := newSnapshot(t, tmpfs(t), 2)
	for _, d := range []string{"data", "data2"} {
		must(t, os.Mkdir(filepath.Join(s.lowers[0], d), 0o755))
	}
	// A link that leads out of the root, if not resolved within it.
	must(t, os.Symlink("../../../../data2", filepath.Join(s.lowers[0], "link")))
	tree := assemble(t, Options{}, s.mount(),
		Mount{Type: "tmpfs", Source: "tmpfs", Target: "/data", Options: []string{"mode=0700"}},
		Mount{Type: "tmpfs", Source: "tmpfs", Target: "link"})
	inside(t, tree, func(root string) error {
		for _, d := range []string{"data", "data2"} {
			var st unix.Statfs_t
			must(t, unix.Statfs(filepath.Join(root, d), &st))
			if st.Type != unix.TMPFS_MAGIC {
				t.Errorf("%s: file system %x", d, st.Type)
			}
		}
		return nil
	})
}
