package rootfs

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkRootfs makes and removes a root filesystem of n layers, and for
// orientation does the same with one attached ID-mapped mount per layer, and
// with one mount(2).
func BenchmarkRootfs(b *testing.B) {
	requireRoot(b)
	var cache UserNSCache
	b.Cleanup(func() { must(b, cache.Close()) })
	for _, n := range []int{1, 10, 50, 120} {
		s := newSnapshot(b, tmpfs(b), n)
		target := b.TempDir()
		for _, c := range []struct {
			name string
			m    Mount
		}{{"plain", s.mount()}, {"idmapped", s.idmapped(b)}} {
			// Reported beside the whole: the part until the tree is there.
			run := func(b *testing.B, remove func(*Tree) error) {
				var assembling time.Duration
				var syscalls int
				for b.Loop() {
					tree, err := Assemble(b.Context(), []Mount{c.m}, Options{Cache: &cache})
					must(b, err)
					assembling += tree.Stats().Duration
					syscalls += tree.Stats().Syscalls
					must(b, remove(tree))
				}
				b.ReportMetric(float64(assembling.Nanoseconds())/float64(b.N), "assemble-ns/op")
				b.ReportMetric(float64(syscalls)/float64(b.N), "syscalls/op")
			}
			b.Run(fmt.Sprintf("layers=%d/%s/detached", n, c.name), func(b *testing.B) { run(b, (*Tree).Close) })
			b.Run(fmt.Sprintf("layers=%d/%s/attached", n, c.name), func(b *testing.B) {
				run(b, func(tree *Tree) error {
					must(b, tree.Attach(target))
					return Detach(target)
				})
			})
		}
		b.Run(fmt.Sprintf("layers=%d/plain/mount", n), func(b *testing.B) {
			for b.Loop() {
				mountClassic(b, s, s.lowers, target)
				must(b, unix.Unmount(target, 0))
			}
		})
		b.Run(fmt.Sprintf("layers=%d/idmapped/mount-per-layer", n), func(b *testing.B) {
			points := make([]string, n)
			for i := range points {
				points[i] = b.TempDir()
			}
			ids, err := ParseIDMap(testMap, testMap)
			must(b, err)
			for b.Loop() {
				for i, lower := range s.lowers {
					ns, err := cache.Get(b.Context(), ids)
					must(b, err)
					attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Propagation: unix.MS_PRIVATE, Userns_fd: uint64(ns.Fd())}
					fd, err := unix.OpenTree(unix.AT_FDCWD, lower, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
					must(b, err)
					must(b, unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr))
					must(b, unix.MoveMount(fd, "", unix.AT_FDCWD, points[i], unix.MOVE_MOUNT_F_EMPTY_PATH))
					must(b, unix.Close(fd))
					must(b, ns.Close())
				}
				mountClassic(b, s, points, target)
				for _, p := range points {
					must(b, unix.Unmount(p, 0))
				}
				must(b, unix.Unmount(target, 0))
			}
		})
	}
}

// mountClassic mounts by one mount(2), from the directory above the layers so
// that their names fit into its page.
func mountClassic(b *testing.B, s *snapshot, lowers []string, target string) {
	parent, names := commonParent(lowers)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread's directory is not ours
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Chdir(parent); err != nil {
				return err
			}
			if len(names) == 1 {
				names[0] = filepath.Join(parent, names[0])
			}
			return unix.Mount("overlay", target, "overlay", 0,
				"lowerdir="+strings.Join(names, ":")+",upperdir="+s.upper+",workdir="+s.work)
		}()
	}()
	must(b, <-done)
}

// BenchmarkUserNS makes a user namespace, and takes one from a cache.
func BenchmarkUserNS(b *testing.B) {
	requireRoot(b)
	ids := mapping(b, testMap, testMap)
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			f, err := newUserNS(ids)
			must(b, err)
			must(b, f.Close())
		}
	})
	b.Run("cached", func(b *testing.B) {
		var cache UserNSCache
		defer cache.Close()
		for b.Loop() {
			f, err := cache.Get(b.Context(), ids)
			must(b, err)
			must(b, f.Close())
		}
	})
}
