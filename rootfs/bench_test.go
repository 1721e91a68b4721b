package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// benchContainer is where one container of a benchmark lies.
type benchContainer struct {
	mount       Mount
	upper, work string
	target      string
	points      []string // for the layers of containerd before 2.2, [0] also for the later one
}

// benchmark is one image, and containers of it.
type benchmark struct {
	testing.TB
	lowers     []string
	containers []*benchContainer
	options    Options
	userNS     *os.File
}

// way makes a root filesystem and gives what takes it away.
type way struct {
	name string
	make func(*benchmark, *benchContainer) (remove func() error, err error)
}

func newBenchmark(b *testing.B, layers, parallel int) *benchmark {
	fs := tmpfs(b)
	s := newSnapshot(b, filepath.Join(fs, "snapshots"), layers)
	bench := &benchmark{TB: b, lowers: s.lowers}
	for i := range parallel {
		dir := filepath.Join(s.dir, fmt.Sprint(10000+i))
		s.upper, s.work = filepath.Join(dir, "fs"), filepath.Join(dir, "work")
		must(b, os.MkdirAll(s.upper, 0o755))
		must(b, os.Mkdir(s.work, 0o711))
		c := &benchContainer{upper: s.upper, work: s.work, target: filepath.Join(fs, "run", fmt.Sprint(i), "rootfs"), mount: s.idmapped(b)}
		must(b, os.MkdirAll(c.target, 0o711))
		for j := range layers {
			point := filepath.Join(fs, "tmp", fmt.Sprint(i), fmt.Sprint(j))
			must(b, os.MkdirAll(point, 0o711))
			c.points = append(c.points, point)
		}
		bench.containers = append(bench.containers, c)
	}
	cache, base, workshop := &UserNSCache{}, &BaseCache{}, &Workshop{}
	b.Cleanup(func() {
		must(b, cache.Close())
		must(b, base.Close())
		must(b, workshop.Close())
	})
	bench.options = Options{Cache: cache, Base: base, Workshop: workshop}
	ns, err := cache.Get(b.Context(), mapping(b, testMap, testMap))
	must(b, err)
	b.Cleanup(func() { ns.Close() })
	bench.userNS = ns
	return bench
}

func inTier(tier Tier, base, attach bool) func(*benchmark, *benchContainer) (func() error, error) {
	return func(b *benchmark, c *benchContainer) (func() error, error) {
		o := b.options
		o.Tier, o.Target = tier, c.target
		if !base {
			o.Base = nil
		}
		tree, err := Assemble(b.Context(), []Mount{c.mount}, o)
		if err != nil {
			return nil, err
		}
		if attach {
			err = tree.Attach(c.target)
			return func() error { return Detach(c.target) }, err
		}
		return func() error {
			err := tree.Close()
			if tree.Host() != "" {
				err = Detach(tree.Host())
			}
			return err
		}, nil
	}
}

// attachClone attaches an ID-mapped clone of dir, as containerd does.
func (b *benchmark) attachClone(dir, point string, recursive uint) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|recursive)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE, Userns_fd: uint64(b.userNS.Fd())}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|recursive, &attr); err != nil {
		return err
	}
	return unix.MoveMount(fd, "", unix.AT_FDCWD, point, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// mountByNames is one mount(2), from the directory above the layers if their
// names do not fit into its page otherwise.
func (c *benchContainer) mountByNames(parent string, names []string) error {
	data := func(names []string) string {
		return "lowerdir=" + strings.Join(names, ":") + ",upperdir=" + c.upper + ",workdir=" + c.work
	}
	full := make([]string, len(names))
	for i, name := range names {
		full[i] = filepath.Join(parent, name)
	}
	if s := data(full); len(s) <= maxData {
		return unix.Mount("overlay", c.target, "overlay", 0, s)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread's directory is not ours
		done <- inOrder(
			func() error { return unix.Unshare(unix.CLONE_FS) },
			func() error { return unix.Chdir(parent) },
			func() error { return unix.Mount("overlay", c.target, "overlay", 0, data(names)) },
			func() error { return unix.Chdir("/") })
	}()
	return <-done
}

// commonParentWay is containerd 2.2 and later.
func commonParentWay(b *benchmark, c *benchContainer) (func() error, error) {
	parent, names := commonParent(b.lowers)
	return func() error { return unix.Unmount(c.target, 0) }, inOrder(
		func() error { return b.attachClone(parent, c.points[0], unix.AT_RECURSIVE) },
		func() error { return c.mountByNames(c.points[0], names) },
		func() error { return unix.Unmount(c.points[0], 0) })
}

// perLayerWay is containerd before 2.2.
func perLayerWay(b *benchmark, c *benchContainer) (func() error, error) {
	for i, lower := range b.lowers {
		if err := b.attachClone(lower, c.points[i], 0); err != nil {
			return nil, err
		}
	}
	parent, names := commonParent(c.points)
	if err := c.mountByNames(parent, names); err != nil {
		return nil, err
	}
	for _, point := range c.points {
		if err := unix.Unmount(point, 0); err != nil {
			return nil, err
		}
	}
	return func() error { return unix.Unmount(c.target, 0) }, nil
}

// round has all containers made at once, and taken away at once. It gives the
// time until all were there, and until all were gone.
func (b *benchmark) round(w way) (made, gone time.Duration) {
	begin := time.Now()
	remove := make([]func() error, len(b.containers))
	errs := make([]error, len(b.containers))
	var wg sync.WaitGroup
	for i, c := range b.containers {
		wg.Go(func() { remove[i], errs[i] = w.make(b, c) })
	}
	wg.Wait()
	made = time.Since(begin)
	for _, err := range errs {
		must(b, err)
	}
	for i := range remove {
		wg.Go(func() { errs[i] = remove[i]() })
	}
	wg.Wait()
	gone = time.Since(begin)
	for _, err := range errs {
		must(b, err)
	}
	return made, gone
}

// BenchmarkAssemble makes root filesystems for a user namespace, a number of
// them at once, in each way in turn. It reports the median time per container,
// in microseconds, until it is there; "-whole" until it is gone.
func BenchmarkAssemble(b *testing.B) {
	requireRoot(b)
	ways := []way{
		{"common-parent", commonParentWay},
		{"detached", inTier(Detached, false, false)},
		{"detached+attach", inTier(Detached, false, true)},
		{"base", inTier(Detached, true, false)},
		{"descriptors", inTier(Descriptors, false, false)},
		{"names", inTier(Names, false, false)},
		{"options", inTier(OptionString, false, false)},
		{"host", inTier(Host, false, false)},
		{"per-layer", perLayerWay},
	}
	for _, layers := range []int{1, 10, 50, 120, 400} {
		for _, parallel := range []int{1, 20, 100} {
			b.Run(fmt.Sprintf("layers=%d/parallel=%d", layers, parallel), func(b *testing.B) {
				bench := newBenchmark(b, layers, parallel)
				made, whole := map[string][]time.Duration{}, map[string][]time.Duration{}
				rounds := 0
				for b.Loop() {
					for i := range ways {
						w := ways[(i+rounds)%len(ways)]
						if w.name == "per-layer" && (layers > 120 || rounds%8 != 0) {
							continue // takes longer than all others together
						}
						m, g := bench.round(w)
						if rounds > 0 || w.name == "per-layer" {
							made[w.name], whole[w.name] = append(made[w.name], m), append(whole[w.name], g)
						}
					}
					rounds++
				}
				b.ReportMetric(0, "ns/op")
				for _, w := range ways {
					for suffix, times := range map[string][]time.Duration{"-µs": made[w.name], "-whole-µs": whole[w.name]} {
						if len(times) > 0 {
							slices.Sort(times)
							b.ReportMetric(float64(times[len(times)/2].Microseconds())/float64(parallel), w.name+suffix)
						}
					}
				}
			})
		}
	}
}

// medians reports the median times of one way alone.
func (b *benchmark) medians(to *testing.B, w way) {
	b.round(w) // what is made once: a base, a workshop
	var made, whole []time.Duration
	for to.Loop() {
		m, g := b.round(w)
		made, whole = append(made, m), append(whole, g)
	}
	slices.Sort(made)
	slices.Sort(whole)
	to.ReportMetric(float64(made[len(made)/2].Microseconds()), "made-µs")
	to.ReportMetric(float64(whole[len(whole)/2].Microseconds()), "whole-µs")
	to.ReportMetric(0, "ns/op")
}

// BenchmarkBase makes root filesystems on a base that is there already: the
// time does not depend on the layers.
func BenchmarkBase(b *testing.B) {
	requireDetached(b)
	for _, layers := range []int{10, 120, 400} {
		b.Run(fmt.Sprintf("layers=%d", layers), func(b *testing.B) {
			bench := newBenchmark(b, layers, 1)
			bench.medians(b, way{make: inTier(Detached, true, false)})
		})
	}
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

// BenchmarkHostTable assembles beside mount tables of several sizes.
func BenchmarkHostTable(b *testing.B) {
	requireRoot(b)
	for _, entries := range []int{0, 1000, 10000} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			fillTable(b, entries)
			bench := newBenchmark(b, 50, 1)
			for _, tier := range tiers(b) {
				b.Run(tier.String(), func(b *testing.B) {
					bench.medians(b, way{make: inTier(tier, false, false)})
				})
			}
		})
	}
}

// fillTable attaches mounts to the test's mount namespace, below one that
// takes them all away in the end.
func fillTable(t testing.TB, entries int) {
	t.Helper()
	dir := tmpfs(t)
	for i := range entries {
		point := filepath.Join(dir, fmt.Sprint(i))
		must(t, os.Mkdir(point, 0o700))
		must(t, unix.Mount(dir, point, "", unix.MS_BIND, ""))
	}
}
