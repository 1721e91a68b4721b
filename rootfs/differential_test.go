package rootfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// awkward adds what images rarely have to the layers of a snapshot.
func awkward(t *testing.T, s *snapshot) {
	t.Helper()
	low, middle, top := s.lowers[2], s.lowers[1], s.lowers[0]
	at := func(layer string, name ...string) string { return filepath.Join(append([]string{layer}, name...)...) }
	write(t, at(low, "first"), "linked", 5, 0o640)
	must(t, os.Link(at(low, "first"), at(low, "second")))
	must(t, os.Link(at(low, "first"), at(low, "dir", "third")))
	for name, mode := range map[string]uint32{
		"suid": unix.S_IFREG | 0o4755, "sgid": unix.S_IFREG | 0o2755, "none": unix.S_IFREG, "fifo": unix.S_IFIFO | 0o600,
		"socket": unix.S_IFSOCK | 0o755, "char": unix.S_IFCHR | 0o666, "block": unix.S_IFBLK | 0o660,
	} {
		must(t, unix.Mknod(at(low, name), mode, int(unix.Mkdev(1, 3))))
		must(t, unix.Chmod(at(low, name), mode&0o7777))
	}
	for name, target := range map[string]string{"absolute": "/top", "dangling": "no/where", "loop": "loop", "up": "../../../etc/passwd"} {
		must(t, os.Symlink(target, at(low, name)))
		must(t, os.Lchown(at(low, name), 65535, 1))
	}
	must(t, os.Mkdir(at(low, "sticky"), 0o700))
	must(t, unix.Chmod(at(low, "sticky"), 0o3777))
	for _, name := range []string{strings.Repeat("n", 255), "new\nline", "not \xff UTF-8", "back\\slash", "co:lon", "com,ma", ".wh.file", " "} {
		write(t, at(low, name), name, 12, 0o604)
	}
	write(t, at(low, "sparse"), "", 0, 0o600)
	must(t, os.Truncate(at(low, "sparse"), 1<<30))
	write(t, at(low, "xattrs"), "", 1, 0o600)
	for name, value := range map[string]string{"user.empty": "", "user.zero": "a\x00b", "trusted.own": "x", "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if err := unix.Setxattr(at(low, "xattrs"), name, []byte(value), 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			t.Fatal(name, err)
		}
	}
	deep := at(low, strings.Repeat("deep/", 60))
	must(t, os.MkdirAll(deep, 0o711))
	write(t, at(deep, "leaf"), "leaf", 3, 0o600)
	// Changes by upper layers: removed, opaque, file for directory and back.
	must(t, unix.Mknod(at(middle, "deleted"), unix.S_IFCHR, 0))
	must(t, unix.Mknod(at(middle, "second"), unix.S_IFCHR, 0))
	must(t, os.Mkdir(at(middle, "dir"), 0o750))
	must(t, unix.Setxattr(at(middle, "dir"), "trusted.overlay.opaque", []byte("y"), 0))
	write(t, at(middle, "dir", "visible"), "v", 0, 0o600)
	write(t, at(middle, "sticky"), "a file now", 0, 0o600)
	must(t, os.Mkdir(at(middle, "suid"), 0o755))
	write(t, at(middle, "suid", "below"), "", 0, 0o600)
	write(t, at(top, "deleted"), "again", 9, 0o600)
	must(t, os.Mkdir(at(top, "dir"), 0o705))
	must(t, unix.Mknod(at(top, "dir", "visible"), unix.S_IFCHR, 0))
}

// manifest describes every file below root; the own time stamps of directories
// are not the image's.
func manifest(root string) (map[string]string, error) {
	files, inodes := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		d := fmt.Sprintf("%o %d:%d %d links", st.Mode, st.Uid, st.Gid, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			d += fmt.Sprint(" ", st.Size, st.Mtim)
			if st.Size < 1<<20 {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				d += fmt.Sprintf(" %x", sha256.Sum256(b))
			}
			if first, ok := inodes[st.Ino]; ok {
				d += " as " + first
			} else {
				inodes[st.Ino] = name
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			d += " to " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			d += fmt.Sprint(" ", st.Rdev)
		}
		xattrs, err := listXattrs(path)
		files[name] = d + xattrs
		return err
	})
	return files, err
}

func listXattrs(path string) (string, error) {
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return "", err
	}
	names := bytes.Split(bytes.TrimSuffix(list[:n], []byte{0}), []byte{0})
	slices.SortFunc(names, bytes.Compare)
	var out string
	for _, name := range names {
		// Random, and the handle of the file in its layer, which a base has none
		// of: overlayfs uses it to keep inode numbers.
		if len(name) == 0 || string(name) == "trusted.overlay.uuid" || string(name) == "trusted.overlay.origin" {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, string(name), value)
		if err != nil {
			return "", fmt.Errorf("%s: %s: %w", path, name, err)
		}
		out += fmt.Sprintf(" %s=%x", name, value[:n])
	}
	return out, nil
}

// change does to a container's root file system what containers do.
func change(root string) error {
	at := func(name string) string { return filepath.Join(root, name) }
	now := unix.NsecToTimespec(1e18)
	return inOrder(
		func() error { return os.WriteFile(at("first"), []byte("changed"), 0) },
		func() error { return os.Chmod(at("layer1"), 0o4711) },
		func() error { return os.Lchown(at("layer2"), testRoot+7, testRoot+8) },
		func() error { return os.Remove(at("absolute")) },
		func() error { return os.RemoveAll(at("suid")) },
		func() error { return os.Mkdir(at("suid"), 0o700) },
		func() error { return unix.Setxattr(at("xattrs"), "trusted.more", []byte("y"), 0) },
		func() error { return os.Rename(at("dangling"), at("moved")) },
		func() error { return os.Link(at("co:lon"), at("hard")) },
		func() error {
			for _, name := range []string{"first", "xattrs", "co:lon"} {
				if err := unix.UtimesNanoAt(unix.AT_FDCWD, at(name), []unix.Timespec{now, now}, 0); err != nil {
					return err
				}
			}
			return nil
		})
}

// look gives what a container sees before and after its changes.
func look(root string) (fresh, changed map[string]string, err error) {
	if fresh, err = manifest(root); err != nil {
		return nil, nil, err
	}
	if err = change(root); err != nil {
		return nil, nil, err
	}
	changed, err = manifest(root)
	return fresh, changed, err
}

func compare(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if len(want) < 5 {
		t.Errorf("%s: nothing to compare: %v", what, want)
	}
	for name := range maps.Keys(want) {
		if got[name] != want[name] && strings.TrimSuffix(got[name], " as /co:lon") != want[name] {
			t.Errorf("%s: %q is\n  %s\nwith mount(2)\n  %s", what, name, got[name], want[name])
		}
	}
	for name := range maps.Keys(got) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %q is not there with mount(2)", what, name)
		}
	}
}

// Each tier, and the shared base, give file by file what mount(2) of the same
// layers gives, before and after changes, to the container and on disk.
func TestSameAsMount(t *testing.T) {
	requireRoot(t)
	for _, mapped := range []bool{false, true} {
		for _, n := range []int{3, byNameFrom + 1} {
			t.Run(fmt.Sprintf("mapped=%v/%d", mapped, n), func(t *testing.T) {
				dir := tmpfs(t)
				s := newSnapshot(t, dir, n)
				awkward(t, &snapshot{lowers: s.lowers[n-3:]})
				times := unix.NsecToTimespec(15e17)
				for _, lower := range s.lowers { // directories' too: the same for all
					must(t, filepath.WalkDir(lower, func(path string, _ fs.DirEntry, err error) error {
						return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{times, times}, unix.AT_SYMLINK_NOFOLLOW))
					}))
				}
				fresh, changed, upper := byMount(t, s, mapped)
				check := func(t *testing.T, o Options) {
					m := s.fresh(t, mapped)
					inside(t, assemble(t, o, m), func(root string) error {
						gotFresh, gotChanged, err := look(root)
						compare(t, "fresh", gotFresh, fresh)
						compare(t, "changed", gotChanged, changed)
						return err
					})
					got, err := manifest(s.upper)
					must(t, err)
					compare(t, "upper directory", got, upper)
				}
				eachTier(t, check)
				if bestTier(t) == Detached {
					t.Run("base", func(t *testing.T) {
						var base BaseCache
						t.Cleanup(func() { must(t, base.Close()) })
						// The price of a base: a file that is linked to after it
						// was copied up does not keep its inode number.
						for _, m := range []map[string]string{fresh, changed, upper} {
							m["/hard"] = strings.TrimSuffix(m["/hard"], " as /co:lon")
						}
						check(t, Options{Base: &base})
					})
				}
			})
		}
	}
}

// fresh gives the snapshot a new writable layer.
func (s *snapshot) fresh(t *testing.T, mapped bool) Mount {
	t.Helper()
	dir, err := os.MkdirTemp(s.dir, "")
	must(t, err)
	s.upper, s.work = filepath.Join(dir, "fs"), filepath.Join(dir, "work")
	must(t, os.Mkdir(s.upper, 0o755))
	must(t, os.Mkdir(s.work, 0o711))
	if mapped {
		return s.idmapped(t)
	}
	return s.mount()
}

// byMount does by mount(2), with a mount per layer, what is to be compared
// with.
func byMount(t *testing.T, s *snapshot, mapped bool) (fresh, changed, upper map[string]string) {
	t.Helper()
	s.fresh(t, mapped)
	c := &benchContainer{upper: s.upper, work: s.work, target: t.TempDir()}
	parent, names := commonParent(s.lowers)
	if mapped {
		ns, err := newUserNS(mapping(t, testMap, testMap))
		must(t, err)
		defer ns.Close()
		b := &benchmark{TB: t, userNS: ns}
		points := t.TempDir()
		for i, lower := range s.lowers {
			point := filepath.Join(points, fmt.Sprint(i))
			must(t, os.Mkdir(point, 0o700))
			must(t, b.attachClone(lower, point, 0))
			defer func() { must(t, unix.Unmount(point, unix.MNT_DETACH)) }()
			names[i] = fmt.Sprint(i)
		}
		parent = points
	}
	must(t, c.mountByNames(parent, names))
	defer func() { must(t, unix.Unmount(c.target, unix.MNT_DETACH)) }()
	fresh, changed, err := look(c.target)
	must(t, err)
	upper, err = manifest(s.upper)
	must(t, err)
	return fresh, changed, upper
}
