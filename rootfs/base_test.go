package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func requireDetached(t testing.TB) {
	t.Helper()
	requireRoot(t)
	if bestTier(t) != Detached {
		t.Skip("a shared base needs detached layers, Linux 6.15")
	}
}

// Containers on one base have their own writable layers, and the kernel is
// told of the layers once.
func TestBase(t *testing.T) {
	requireDetached(t)
	for _, mapped := range []bool{false, true} {
		dir := tmpfs(t)
		s := newSnapshot(t, dir, 100)
		var base BaseCache
		layers := 0
		for i := range 3 {
			m := s.fresh(t, mapped)
			tree := assemble(t, Options{Base: &base}, m)
			if st := tree.Stats(); !st.Base || st.Attached != 0 {
				t.Errorf("stats %+v", st)
			}
			layers += tree.Stats().Layers
			inside(t, tree, func(root string) error {
				if b, err := os.ReadFile(filepath.Join(root, "layer1")); err != nil || len(b) != 0 {
					t.Errorf("container %d sees another's change: %q %v", i, b, err)
				}
				return os.WriteFile(filepath.Join(root, "layer1"), []byte("changed"), 0)
			})
			if b, err := os.ReadFile(filepath.Join(s.upper, "layer1")); err != nil || string(b) != "changed" {
				t.Errorf("on disk: %q %v", b, err)
			}
		}
		if layers != 100 {
			t.Errorf("%d layers named for three containers of 100", layers)
		}
		must(t, base.Close())
		must(t, unix.Unmount(dir, 0))
		mountScratch(t, dir) // for the cleanup
	}
}

// Concurrent containers make one base; it survives neither a layer that was
// made anew nor a bound on the number of bases.
func TestBaseIdentity(t *testing.T) {
	requireDetached(t)
	s := newSnapshot(t, tmpfs(t), 3)
	var base BaseCache
	t.Cleanup(func() { must(t, base.Close()) })
	mounts := make([]Mount, 8)
	for i := range mounts {
		mounts[i] = s.fresh(t, true)
	}
	var cache UserNSCache
	defer cache.Close()
	var wg sync.WaitGroup
	for _, m := range mounts {
		wg.Go(func() {
			tree, err := Assemble(t.Context(), []Mount{m}, Options{Base: &base, Cache: &cache})
			if err != nil {
				t.Error(err)
				return
			}
			if !tree.Stats().Base {
				t.Errorf("not on the base: %+v", tree.Stats())
			}
			tree.Close()
		})
	}
	wg.Wait()
	if len(base.entries) != 1 {
		t.Errorf("%d bases of one image", len(base.entries))
	}
	must(t, os.RemoveAll(s.lowers[0]))
	must(t, os.Mkdir(s.lowers[0], 0o755))
	write(t, filepath.Join(s.lowers[0], "anew"), "", 0, 0o600)
	inside(t, assemble(t, Options{Base: &base, Cache: &cache}, s.fresh(t, true)), func(root string) error {
		_, err := os.Stat(filepath.Join(root, "anew"))
		return err
	})
	for i := range fileCacheSize + 2 {
		s.lowers[1] = filepath.Join(s.dir, fmt.Sprint("other", i))
		must(t, os.Mkdir(s.lowers[1], 0o755))
		assemble(t, Options{Base: &base}, s.fresh(t, false))
	}
	if len(base.entries) != fileCacheSize || len(base.order) != fileCacheSize {
		t.Errorf("%d bases kept", len(base.entries))
	}
}

// Where a base cannot serve, the container comes without one.
func TestBaseCannotServe(t *testing.T) {
	requireDetached(t)
	unchanged(t)
	dir := tmpfs(t)
	s := newSnapshot(t, dir, 3)
	one := newSnapshot(t, filepath.Join(dir, "one"), 1)
	view := Mount{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + strings.Join(s.lowers, ":")}}
	var base BaseCache
	defer base.Close()
	for name, m := range map[string]Mount{
		"single layer": one.mount(), "read-only view": view, "index": s.mount("index=on"), "metacopy": s.mount("metacopy=on"),
		"redirect_dir": s.fresh(t, false).with("redirect_dir=on"), "unclean names": s.fresh(t, false).with("lowerdir=" + s.dir + "//1/fs:" + s.lowers[0]),
		"one by one": s.fresh(t, false).with("lowerdir+=" + s.lowers[0]),
	} {
		tree, err := Assemble(t.Context(), []Mount{m}, Options{Base: &base})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tree.Stats().Base {
			t.Errorf("%s: on a base", name)
		}
		must(t, tree.Close())
	}
	// Layers on an overlay: the stack would be too deep.
	outer := t.TempDir()
	tree := assemble(t, Options{}, s.fresh(t, false))
	must(t, tree.Attach(outer))
	defer func() { must(t, Detach(outer)) }()
	nested := newSnapshot(t, filepath.Join(outer, "nested"), 2)
	nested.upper, nested.work = filepath.Join(dir, "nested", "fs"), filepath.Join(dir, "nested", "work")
	must(t, os.MkdirAll(nested.upper, 0o755))
	must(t, os.MkdirAll(nested.work, 0o755))
	tree, err := Assemble(t.Context(), []Mount{nested.mount()}, Options{Base: &base})
	must(t, err)
	if tree.Stats().Base {
		t.Error("a stack of three overlays")
	}
	must(t, tree.Close())
}

// A list that was seen before is not looked at again, whatever its length, and
// is the same list in all tiers and combinations.
func TestKnownList(t *testing.T) {
	requireDetached(t)
	dir := tmpfs(t)
	s := newSnapshot(t, dir, 40)
	var base BaseCache
	defer base.Close()
	tree := assemble(t, Options{Base: &base}, s.fresh(t, true))
	if !tree.Stats().Base {
		t.Fatalf("not on a base: %+v", tree.Stats())
	}
	m := s.fresh(t, true)
	r, err := parse(m, base.number)
	must(t, err)
	if r.overlay.number == 0 || r.overlay.lowers != nil {
		t.Errorf("the list of an image on a base was cut: %+v", r.overlay)
	}
	for name, test := range map[string]struct {
		tier   Tier
		mount  Mount
		layers int
	}{
		"descriptors": {Descriptors, m, 40}, "names": {Names, s.fresh(t, true), 40}, "options": {OptionString, s.fresh(t, true), 40},
		"index": {Auto, s.fresh(t, true).and("index=on"), 40},
	} {
		t.Run(name, func(t *testing.T) {
			tree := assemble(t, Options{Base: &base, Tier: test.tier}, test.mount)
			if st := tree.Stats(); st.Layers != test.layers || st.Base {
				t.Errorf("stats %+v", st)
			}
			inside(t, tree, func(root string) error {
				_, err := os.Stat(filepath.Join(root, "layer1"))
				return err
			})
		})
	}
	for _, more := range []string{"lowerdir=" + strings.Join(s.lowers, ":"), "lowerdir=/a:/b", "lowerdir+=/a", "datadir+=/a"} {
		if _, err := parse(s.fresh(t, true).and(more), base.number); !errors.Is(err, ErrInvalid) {
			t.Errorf("the list and %.20s: %v", more, err)
		}
	}
	few, many := knownListBytes(t, &base, 10), knownListBytes(t, &base, 400)
	if many > few+few/2 {
		t.Errorf("parsing allocates %d bytes for 10 layers that are known, %d for 400", few, many)
	}
}

// knownListBytes is what parsing a mount of layers that are known allocates,
// in bytes.
func knownListBytes(t *testing.T, base *BaseCache, layers int) uint64 {
	t.Helper()
	var lowers []string
	for i := range layers {
		lowers = append(lowers, fmt.Sprint("/var/lib/containerd/snapshots/", i, "/fs"))
	}
	s := &snapshot{lowers: lowers, upper: "/upper", work: "/work"}
	base.lists.give(strings.Join(lowers, ":"))
	m := s.mount()
	const times = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		if r, err := parse(m, base.number); err != nil || r.overlay.number == 0 {
			t.Fatal(r, err)
		}
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / times
}

// Numbers are given once.
func TestListNumbers(t *testing.T) {
	var l listNumbers
	given := map[int]string{}
	for i := range 3 * fileCacheSize {
		list := fmt.Sprint("/", i%(fileCacheSize+2))
		n := l.give(list)
		if before, ok := given[n]; n == 0 || ok && before != list {
			t.Fatalf("%d is of %q, and of %q", n, before, list)
		}
		given[n] = list
		if l.of(list) != n || l.give(list) != n {
			t.Errorf("%q is not %d", list, n)
		}
	}
	if len(l.latest) != fileCacheSize {
		t.Errorf("%d lists kept", len(l.latest))
	}
	if n := l.of("/0:/1"); n != 0 {
		t.Errorf("an unknown list is %d", n)
	}
}

// and adds an option.
func (m Mount) and(option string) Mount {
	m.Options = append(slices.Clone(m.Options), option)
	return m
}

// with replaces the lower directories if option names them, and adds it
// otherwise.
func (m Mount) with(option string) Mount {
	if strings.HasPrefix(option, "lowerdir") {
		m.Options = m.Options[:len(m.Options)-1]
	}
	m.Options = append(m.Options, option)
	return m
}
