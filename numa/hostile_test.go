package numa

import (
	"bytes"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"containerd-shim-numa-v1/numa/machines"
)

const (
	cpu0  = cpuDir + "cpu0/"
	tier4 = tierDir + "/memory_tier4/nodelist"
)

// r5 is the shape of r5.metal changed by one edit.
func r5(change func(*shape)) shape {
	s := shapes["r5.metal"]
	change(&s)
	return s
}

var oddities = []struct {
	name  string
	edits []string
	want  shape
}{
	{"NULs and no line break", []string{cpuDir + "online", "0-95\x00\x00", nodeDir + "online", "0-1"}, r5(func(*shape) {})},
	{"isolated but not online", []string{cpuDir + "isolated", "200"}, r5(func(*shape) {})},
	{"no topology", []string{cpuDir + "cpu*", absent}, r5(func(s *shape) {
		s.cores, s.threads, s.packages, s.dies, s.caches, s.firstLLC = 96, 1, 1, 1, 0, ""
	})},
	{"old names only", []string{
		cpu0 + "topology/core_cpus_list", absent, cpu0 + "topology/package_cpus_list", absent,
	}, r5(func(*shape) {})},
	{"unknown package", []string{cpu0 + "topology/physical_package_id", "-1\n"}, r5(func(*shape) {})},
	{"empty lists of CPU 0", []string{
		cpu0 + "topology/core_cpus_list", "\n", cpu0 + "topology/package_cpus_list", "\n", cpu0 + "topology/die_cpus_list", "",
		cpu0 + "cache/index3/shared_cpu_list", "\n",
	}, r5(func(s *shape) { s.cores, s.caches, s.firstLLC = 49, 3, "0" })},
	{"siblings disagree", []string{cpu0 + "topology/core_cpus_list", "0-1,48"},
		r5(func(s *shape) { s.cores, s.threads = 48, 3 })},
	{"siblings in two nodes", []string{cpu0 + "topology/core_cpus_list", "0,24"},
		r5(func(s *shape) { s.cores = 49 })},
	{"siblings offline", []string{cpu0 + "topology/core_cpus_list", "0,48,8000"}, r5(func(*shape) {})},
	{"one CPU only", []string{cpuDir + "online", "7"}, shape{"0-1", "0", "0", 1, 1, 1, 1, 1, 1, "7", ""}},
	{"caches overlap", []string{cpu0 + "cache/index3/shared_cpu_list", "0-30"},
		r5(func(s *shape) { s.firstLLC = "0-30,48-78" })},
	{"caches overlap later", []string{cpu0 + "cache/index3/shared_cpu_list", "0,2,48,50"},
		r5(func(s *shape) { s.caches, s.firstLLC = 3, "0,2,48,50" })},
	{"cache is instructions", []string{cpu0 + "cache/index3/type", "Instruction"},
		r5(func(s *shape) { s.caches, s.firstLLC = 2, "1-23,49-71" })},
	{"no nodes", []string{nodeDir + "*", absent}, r5(func(s *shape) { s.nodes, s.withCPUs, s.defaults = "0", "0", "0" })},
	{"no node is online", []string{nodeDir + "online", "\n"}, r5(func(s *shape) { s.nodes, s.withCPUs, s.defaults = "0", "0", "0" })},
	{"a CPU in two nodes", []string{nodeDir + "node1/cpulist", "0-95"}, r5(func(*shape) {})},
	{"numa=fake", []string{nodeDir + "node0/cpulist", "0-95", nodeDir + "node1/cpulist", "0-95"},
		r5(func(s *shape) { s.withCPUs = "0" })},
	{"CPUs in no node", []string{nodeDir + "node1/cpulist", absent}, r5(func(s *shape) { s.withCPUs, s.defaults = "0", "0" })},
	{"no CPU in any node", []string{nodeDir + "node0/cpulist", "", nodeDir + "node1/cpulist", ""},
		r5(func(s *shape) { s.withCPUs = "0" })},
	{"memory where no CPU is", []string{nodeDir + "node0/cpulist", "0-95", nodeDir + "node1/cpulist", "", nodeDir + "has_memory", "1"},
		r5(func(s *shape) { s.withCPUs, s.defaults = "0", "1" })},
	{"no memory", []string{nodeDir + "has_memory", "\n"}, r5(func(*shape) {})},
	{"no has_memory, no meminfo", []string{nodeDir + "has_memory", absent, nodeDir + "node0/meminfo", absent},
		r5(func(s *shape) { s.defaults = "1" })},
	{"a slow node with CPUs", []string{tier4, "0", tierDir + "/memory_tier22/nodelist", "1"},
		r5(func(s *shape) { s.defaults = "0" })},
	{"tiers of odd names", []string{tierDir + "/memory_tierx/nodelist", "x", tierDir + "/power/control", ""},
		r5(func(*shape) {})},
	{"all cores efficient", []string{"devices/cpu_atom/cpus", "0-95"}, r5(func(*shape) {})},
	{"capacities alike", []string{cpu0 + "cpu_capacity", "1024", cpuDir + "cpu1/cpu_capacity", "1000", cpuDir + "cpu2/cpu_capacity", "0"},
		r5(func(*shape) {})},
	{"capacities differ", []string{cpu0 + "cpu_capacity", "1024", cpuDir + "cpu1/cpu_capacity", "600"},
		r5(func(s *shape) { s.efficient = "1,49" })},
}

func TestDiscoverOdd(t *testing.T) {
	for _, c := range oddities {
		m, err := Discover(with(t, "r5.metal", c.edits...))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := shapeOf(m); got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
		if err := m.check(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestDistances(t *testing.T) {
	for _, c := range []struct {
		row  string
		want []int
	}{
		{"10 21\n", []int{10, 21}},
		{"10 255", []int{10, 255}},
		{absent, []int{10, 20}},
		{"", []int{10, 20}},
		{"10", []int{10, 20}},
		{"10 21 21", []int{10, 20}},
		{"10 256", []int{10, 20}},
		{"10 9", []int{10, 20}},
		{"21 10", []int{10, 20}},
		{"10 x", []int{10, 20}},
		{"10 99999999999999999999", []int{10, 20}},
	} {
		m, err := Discover(with(t, "r5.metal", nodeDir+"node0/distance", c.row))
		if err != nil || !slices.Equal(m.Nodes[0].Distance, c.want) {
			t.Errorf("%q: %+v, %v; want %v", c.row, m, err, c.want)
		}
	}
}

// TestDiscoverRefuses demands that the error names the file.
func TestDiscoverRefuses(t *testing.T) {
	long := strings.Repeat("0,", maxFile/2) + "0"
	for _, c := range []struct{ path, content string }{
		{cpuDir + "online", absent},
		{cpuDir + "online", ""},
		{cpuDir + "online", "all"},
		{cpuDir + "online", "0-99999"},
		{cpuDir + "online", long},
		{cpuDir + "isolated", "-1"},
		{nodeDir + "online", "0-1024"},
		{nodeDir + "online", "x"},
		{nodeDir + "has_memory", "x"},
		{nodeDir + "node1/cpulist", "0-8192"},
		{nodeDir + "node1/distance", long},
		{nodeDir + "node1/meminfo", "Node 1 MemTotal: -1 kB"},
		{nodeDir + "node1/meminfo", "Node 1 MemTotal: 99999999999999999 kB"},
		{cpu0 + "topology/core_cpus_list", "0-"},
		{cpu0 + "topology/package_cpus_list", "?"},
		{cpu0 + "topology/die_cpus_list", "?"},
		{cpu0 + "topology/die_id", "99999999999"},
		{cpu0 + "topology/physical_package_id", "one"},
		{cpu0 + "cache/index3/level", ""},
		{cpu0 + "cache/index3/type", long},
		{cpu0 + "cache/index3/shared_cpu_list", "0..3"},
		{cpu0 + "cpu_capacity", "much"},
		{"devices/cpu_atom/cpus", "few"},
		{tier4, "x"},
	} {
		m, err := Discover(with(t, "r5.metal", c.path, c.content))
		if err == nil || m != nil || !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s = %.20q: %v, %v", c.path, c.content, m, err)
		}
	}
}

// TestDiscoverDirectories has directories where files should be.
func TestDiscoverDirectories(t *testing.T) {
	for path := range with(t, "vm-2cpu") {
		fsys := with(t, "vm-2cpu", path, absent, path+"/x", "1")
		if m, err := Discover(fsys); err == nil {
			if err := m.check(); err != nil {
				t.Errorf("%s is a directory: %v", path, err)
			}
		}
	}
}

// small are the fixtures that a fuzzer gets around in.
var small = [...]string{"vm-2cpu", "holes", "core-i9-12900", "rk3588", "xeon-cxl"}

// FuzzDiscover changes files of a small machine. Each line of edits is the
// number of a file, a space and its new content; a line without the space
// removes it.
func FuzzDiscover(f *testing.F) {
	var trees [len(small)]fstest.MapFS
	var paths [len(small)][]string
	for i, name := range small {
		fsys, err := machines.Open(name)
		if err != nil {
			f.Fatal(err)
		}
		trees[i], paths[i] = fsys, slices.Sorted(maps.Keys(fsys))
	}
	for i := range small {
		at := func(file string) string {
			return strconv.Itoa(max(0, slices.Index(paths[i], file)))
		}
		f.Add(uint8(i), at(cpuDir+"online")+" 0,2-3,8190\n"+at(nodeDir+"online")+" 0,3,1023")
		f.Add(uint8(i), at(cpu0+"topology/core_cpus_list")+" 0-3\n"+at(nodeDir+"node0/cpulist")+" 1")
		f.Add(uint8(i), at(nodeDir+"node0/cpulist")+"\n"+at(nodeDir+"node0/meminfo"))
		f.Add(uint8(i), at(cpu0+"cache/index3/shared_cpu_list")+" 1-2\n"+at(cpu0+"cache/index1/level")+" 7")
		f.Add(uint8(i), at(cpu0+"cpu_capacity")+" 5\n"+at(cpu0+"topology/die_cpus_list")+" 1")
	}
	f.Fuzz(func(t *testing.T, number uint8, edits string) {
		i := int(number) % len(small)
		fsys := maps.Clone(trees[i])
		for line := range strings.Lines(edits) {
			file, content, found := strings.Cut(line, " ")
			n, err := strconv.Atoi(strings.TrimSpace(file))
			if err != nil || n < 0 {
				continue
			}
			path := paths[i][n%len(paths[i])]
			if delete(fsys, path); found {
				fsys[path] = &fstest.MapFile{Data: []byte(content)}
			}
		}
		checkDiscover(t, fsys)
	})
}

// FuzzDiscoverText reads whole machines from a text.
func FuzzDiscoverText(f *testing.F) {
	f.Add("devices/system/cpu/online 0-3\ndevices/system/cpu/cpu{0-3}/topology/core_cpus_list 0-1,2")
	f.Add("devices/system/cpu/online 0\ndevices/system/node/online 0-1\ndevices/system/node/node{0,1}/cpulist {}")
	f.Add("devices/system/cpu/online 0,9\ndevices/system/cpu/cpu9/cache/index4/type Data")
	f.Fuzz(func(t *testing.T, text string) {
		if fsys, err := machines.Parse(text); err == nil {
			checkDiscover(t, fsys)
		}
	})
}

func checkDiscover(t *testing.T, fsys fs.FS) {
	t.Helper()
	m, err := Discover(fsys)
	if err != nil {
		if m != nil {
			t.Errorf("a topology beside the error %v", err)
		}
		return
	}
	if err := m.check(); err != nil {
		t.Error(err)
	}
	again, err := Discover(fsys)
	if err != nil || again.Hash != m.Hash {
		t.Errorf("then %v, %v", again, err)
	}
	text, err := fs.ReadFile(fsys, cpuDir+"online")
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		t.Errorf("no CPU is online, but %v", m)
	}
}
