package numa

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/numa/machines"
)

// shape is what a test expects of a machine. Sets are in list format.
type shape struct {
	nodes     string // by ID
	withCPUs  string // by ID
	defaults  string // by ID
	online    int    // CPUs
	cores     int
	threads   int
	packages  int
	dies      int
	caches    int
	firstLLC  string // CPUs of the first cache
	efficient string // CPUs
}

var shapes = map[string]shape{
	"altra":                {"0-1", "0-1", "0-1", 160, 160, 1, 2, 2, 0, "", ""},
	"core-i9-12900":        {"0", "0", "0", 24, 16, 2, 1, 1, 1, "0-23", "16-23"},
	"epyc-l3-as-numa":      {"0-15", "0-15", "0-15", 256, 128, 2, 2, 2, 16, "0-7,128-135", ""},
	"epyc-nps4":            {"0-7", "0-7", "0-7", 256, 128, 2, 2, 2, 16, "0-7,128-135", ""},
	"gb200":                {"0-33", "0-1", "0-1", 144, 144, 1, 2, 2, 2, "0-71", ""},
	"graviton3":            {"0", "0", "0", 64, 64, 1, 1, 1, 1, "0-63", ""},
	"graviton4.metal-48xl": {"0-1", "0-1", "0-1", 192, 192, 1, 2, 2, 2, "0-95", ""},
	"holes":                {"0,2,5", "0,2", "0", 28, 15, 2, 2, 4, 4, "0-2,17-18", ""},
	"m7a.24xlarge":         {"0", "0", "0", 96, 96, 1, 1, 1, 12, "0-7", ""},
	"m7i.metal-24xl":       {"0", "0", "0", 96, 48, 2, 1, 1, 1, "0-95", ""},
	"qemu-memory-node":     {"0-2", "0-1", "0-1", 8, 4, 2, 2, 2, 2, "0-3", ""},
	"r5.metal":             {"0-1", "0-1", "0-1", 96, 48, 2, 2, 2, 2, "0-23,48-71", ""},
	"rk3588":               {"0", "0", "0", 8, 8, 1, 1, 1, 1, "0-7", "0-3"},
	"vm-2cpu":              {"0", "0", "0", 2, 2, 1, 1, 1, 1, "0-1", ""},
	"xeon-cxl":             {"0-2", "0-1", "0-1", 128, 64, 2, 2, 2, 2, "0-31,64-95", ""},
	"xeon-snc2":            {"0-3", "0-3", "0-3", 80, 40, 2, 2, 2, 2, "0-19,40-59", ""},
}

func shapeOf(t *Topology) shape {
	var nodes, withCPUs, defaults, efficient cpuset.Set
	for _, n := range t.Nodes {
		id := cpuset.Of(n.ID)
		nodes = nodes.Union(id)
		if !n.CPUs.IsEmpty() {
			withCPUs = withCPUs.Union(id)
		}
		if n.Default {
			defaults = defaults.Union(id)
		}
	}
	packages, dies := map[int]bool{}, map[[2]int]bool{}
	for _, c := range t.Cores {
		packages[c.Package] = true
		dies[[2]int{c.Package, c.Die}] = true
		if c.Efficient {
			efficient = efficient.Union(c.CPUs)
		}
	}
	s := shape{
		nodes: nodes.String(), withCPUs: withCPUs.String(), defaults: defaults.String(),
		online: t.Online.Len(), cores: len(t.Cores), threads: t.ThreadsPerCore,
		packages: len(packages), dies: len(dies), caches: len(t.Caches), efficient: efficient.String(),
	}
	if len(t.Caches) > 0 {
		s.firstLLC = t.Caches[0].CPUs.String()
	}
	return s
}

// machine is the topology of a fixture.
func machine(t testing.TB, name string) *Topology {
	t.Helper()
	fsys, err := machines.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	topology, err := Discover(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return topology
}

func TestDiscoverMachines(t *testing.T) {
	hashes := map[string]string{}
	for _, name := range machines.Names() {
		want, ok := shapes[name]
		if !ok {
			t.Errorf("%s is not in the table", name)
		}
		topology := machine(t, name)
		if got := shapeOf(topology); got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
		}
		if err := topology.check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if other := hashes[topology.Hash]; other != "" {
			t.Errorf("%s has the hash of %s", name, other)
		}
		hashes[topology.Hash] = name
	}
	if len(hashes) != len(shapes) {
		t.Errorf("%d machines, %d in the table", len(hashes), len(shapes))
	}
}

// TestDiscoverHoles looks at each core and node of the machine that has every
// oddity.
func TestDiscoverHoles(t *testing.T) {
	m := machine(t, "holes")
	type core struct {
		cpus                  string
		node, cache, pkg, die int
	}
	want := []core{
		{"0", 0, 0, 0, 0}, {"1,17", 0, 0, 0, 0}, {"2,18", 0, 0, 0, 0}, {"4,20", 0, 1, 0, 1},
		{"5,21", 0, 1, 0, 1}, {"6,22", 0, 1, 0, 1}, {"7,23", 0, 1, 0, 1}, {"8,24", 1, 2, 3, 0},
		{"9", 1, 2, 3, 0}, {"10,26", 1, 2, 3, 0}, {"11,27", 1, 2, 3, 0}, {"12,28", 1, 3, 3, 1},
		{"13,29", 1, 3, 3, 1}, {"14,30", 1, 3, 3, 1}, {"15,31", 1, 3, 3, 1},
	}
	var got []core
	for _, c := range m.Cores {
		got = append(got, core{c.CPUs.String(), c.Node, c.Cache, c.Package, c.Die})
	}
	if !slices.Equal(got, want) {
		t.Errorf("cores:\n got %v\nwant %v", got, want)
	}
	if m.Isolated.String() != "4-5,20-21" {
		t.Errorf("isolated: %q", m.Isolated)
	}
	for i, n := range []Node{
		{ID: 0, Package: 0, Memory: 32 << 30, Distance: []int{10, 21, 17}},
		{ID: 2, Package: 3, Memory: 0, Distance: []int{21, 10, 28}},
		{ID: 5, Package: -1, Memory: 32 << 30, Distance: []int{17, 28, 10}},
	} {
		g := m.Nodes[i]
		if g.ID != n.ID || g.Package != n.Package || g.Memory != n.Memory || !slices.Equal(g.Distance, n.Distance) {
			t.Errorf("node %d: %+v, want %+v", n.ID, g, n)
		}
	}
	if c := m.Caches[2]; c.CPUs.String() != "8-11,24,26-27" || c.Node != 1 {
		t.Errorf("cache 2: %+v", c)
	}
}

// TestDiscoverThis reads this machine and compares with what Capture makes of
// it, which holds the files that may be read and no other.
func TestDiscoverThis(t *testing.T) {
	fsys := os.DirFS("/sys")
	m, err := Discover(fsys)
	if errors.Is(err, errNoCPU) {
		t.Skipf("needs /sys: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := m.check(); err != nil {
		t.Error(err)
	}
	var text strings.Builder
	if err := machines.Capture(fsys, &text); err != nil {
		t.Fatal(err)
	}
	captured, err := machines.Parse(text.String())
	if err != nil {
		t.Fatal(err)
	}
	same, err := Discover(captured)
	if err != nil {
		t.Fatal(err)
	}
	if same.Hash != m.Hash {
		t.Errorf("captured, this machine is another:\n%+v\n%+v", same, m)
	}
}

// TestHash changes one thing at a time.
func TestHash(t *testing.T) {
	base := machine(t, "holes").Hash
	if again := machine(t, "holes").Hash; again != base || len(base) != 2*hashLen {
		t.Errorf("hash %q, then %q", base, again)
	}
	for _, c := range []struct {
		path, content string
		same          bool
	}{
		{"devices/system/node/node0/meminfo", "Node 0 MemTotal: 1 kB", true},
		{"devices/system/cpu/possible", "0-63", true},
		{"devices/system/node/node0/meminfo", "Node 0 MemTotal: 0 kB", false}, // Node.Default
		{"devices/system/cpu/isolated", "", false},
		{"devices/system/cpu/online", "0-1,4-15,17-18,20-24,26-31", false},
		{"devices/system/node/node0/distance", "10 21 18", false},
		{"devices/system/cpu/cpu0/topology/physical_package_id", "7", false},
		{"devices/system/cpu/cpu4/topology/die_id", "7", false},
		{"devices/system/cpu/cpu4/cache/index1/shared_cpu_list", "4,20", false},
		{"devices/cpu_atom/cpus", "4", false},
	} {
		m, err := Discover(with(t, "holes", c.path, c.content))
		if err != nil {
			t.Errorf("%s = %q: %v", c.path, c.content, err)
		} else if (m.Hash == base) != c.same {
			t.Errorf("%s = %q: hash %s, before %s", c.path, c.content, m.Hash, base)
		}
	}
}

// absent is a content that stands for no file.
const absent = "\x00absent"

// with is a fixture with other contents of some files, by path and content in
// turn. A path that ends in * stands for all that begin so.
func with(t testing.TB, name string, edits ...string) fstest.MapFS {
	t.Helper()
	fsys, err := machines.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(edits); i += 2 {
		prefix, many := strings.CutSuffix(edits[i], "*")
		var paths []string
		for path := range fsys {
			if many && strings.HasPrefix(path, prefix) {
				paths = append(paths, path)
			}
		}
		if !many {
			paths = append(paths, edits[i])
		}
		for _, path := range paths {
			fsys[path] = &fstest.MapFile{Data: []byte(edits[i+1])}
			if edits[i+1] == absent {
				delete(fsys, path)
			}
		}
	}
	return fsys
}

// changing is a machine on which another CPU is online each time it is asked,
// for so many times.
type changing struct {
	fstest.MapFS
	times int
}

func (c *changing) Open(name string) (fs.File, error) {
	if name == "devices/system/cpu/online" && c.times > 0 {
		c.times--
		fsys := fstest.MapFS{name: {Data: []byte(cpuset.Range(0, c.times+1).String())}}
		return fsys.Open(name)
	}
	return c.MapFS.Open(name)
}

func TestDiscoverWhileCPUsChange(t *testing.T) {
	// Once: asked before and after, the second attempt finds it the same.
	m, err := Discover(&changing{with(t, "r5.metal"), 1})
	if err != nil || m.Online.Len() != 96 {
		t.Errorf("CPUs changed once: %+v, %v", m, err)
	}
	if _, err = Discover(&changing{with(t, "r5.metal"), 90}); !errors.Is(err, errChanged) {
		t.Errorf("CPUs changed all the time: %v", err)
	}
}

// counting counts the files that are asked for.
type counting struct {
	fs.FS
	opened int
}

func (c *counting) Open(name string) (fs.File, error) {
	c.opened++
	return c.FS.Open(name)
}

// TestDiscoverAsksLittle holds the cost down: a small read of sysfs takes some
// ten microseconds, and a shim starts for every pod.
func TestDiscoverAsksLittle(t *testing.T) {
	for _, name := range machines.Names() {
		c := &counting{FS: with(t, name)}
		m, err := Discover(c)
		if err != nil {
			t.Fatal(err)
		}
		// A core: its siblings and capacity. A cache: four, and one where the
		// kernel is old. Cores of unknown cache are each asked for it.
		most := 40 + 2*len(m.Cores) + 5*len(m.Caches) + 4*len(m.Nodes)
		if len(m.Caches) == 0 {
			most += 4 * len(m.Cores)
		}
		if c.opened > most {
			t.Errorf("%s: %d files opened, want at most %d", name, c.opened, most)
		}
	}
}

// torn is a machine with a file that has grown by the time of a second read.
type torn struct {
	fstest.MapFS
	path string
}

type tornFile struct {
	fs.File
	reads []string
}

func (f *torn) Open(name string) (fs.File, error) {
	file, err := f.MapFS.Open(name)
	if err == nil && name == f.path {
		file = &tornFile{file, []string{"0\n", "7\n"}}
	}
	return file, err
}

func (f *tornFile) Read(p []byte) (int, error) {
	if len(f.reads) == 0 {
		return 0, io.EOF
	}
	n := copy(p, f.reads[0])
	f.reads = f.reads[1:]
	return n, nil
}

func TestDiscoverReadsOnce(t *testing.T) {
	m, err := Discover(&torn{with(t, "vm-2cpu"), "devices/system/cpu/cpu0/topology/core_cpus_list"})
	if err != nil || len(m.Cores) != 2 {
		t.Errorf("%+v, %v", m, err)
	}
}
