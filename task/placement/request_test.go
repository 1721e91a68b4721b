package placement

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/numa/machines"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// r5 is a machine of two nodes, 0-23,48-71 and 24-47,72-95.
func r5(t testing.TB) machine {
	t.Helper()
	sys, err := machines.Open("r5.metal")
	must(t, err)
	topology, err := numa.Discover(sys)
	must(t, err)
	return machine{topology: topology, sysfs: sys, cpus: topology.Online, mems: cpuset.Of(0, 1)}
}

func set(t testing.TB, list string) cpuset.Set {
	t.Helper()
	s, err := cpuset.Parse(list)
	must(t, err)
	return s
}

// parse reads a spec, to which it adds what every spec has.
func parse(t testing.TB, text string) *specs.Spec {
	t.Helper()
	s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
	must(t, json.Unmarshal([]byte(text), s))
	return s
}

const (
	container = `"annotations":{"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-id":"pod"}`
	all       = "0-95"
)

// want is what a request is to be; what is zero is compared as well, but for
// the CPUs and nodes granted, where "" is all.
type want struct {
	milli, width int
	bytes        int64
	huge         map[int64]int64
	devices      []int
	pod          string
	sandbox      bool
	granted      string
	mems         string
	cpu          numa.CPUPolicy
	memory       numa.MemoryPolicy
	keep         string // part of it
	exclusive    bool
	missed       string // part of it
}

func TestAsk(t *testing.T) {
	for name, c := range map[string]struct {
		settings Settings
		spec     string
		parent   string // CPUs of the cgroup above, "" for all
		want     want
	}{
		"nothing":                 {spec: `{}`},
		"kubelet: no request":     {spec: `{` + container + `,"linux":{"resources":{"cpu":{"shares":2}}}}`, want: want{pod: "pod"}},
		"kubelet: 100m":           {spec: `{` + container + `,"linux":{"resources":{"cpu":{"shares":102,"quota":0,"period":100000}}}}`, want: want{pod: "pod", milli: 100}},
		"kubelet: 1 CPU":          {spec: `{` + container + `,"linux":{"resources":{"cpu":{"shares":1024}}}}`, want: want{pod: "pod", milli: 1000}},
		"kubelet: limit 1500m":    {spec: `{` + container + `,"linux":{"resources":{"cpu":{"shares":1536,"quota":150000,"period":100000}}}}`, want: want{pod: "pod", milli: 1500, width: 2}},
		"kubelet: limit, no req.": {spec: `{` + container + `,"linux":{"resources":{"cpu":{"shares":2,"quota":150000,"period":100000}}}}`, want: want{pod: "pod", width: 2}},
		"ctr: its shares":         {spec: `{"linux":{"resources":{"cpu":{"shares":1024}}}}`},
		"ctr --cpu-shares":        {spec: `{"linux":{"resources":{"cpu":{"shares":2048}}}}`, want: want{milli: 2000}},
		"ctr --cpus 2.5":          {spec: `{"linux":{"resources":{"cpu":{"shares":1024,"quota":250000,"period":100000}}}}`, want: want{milli: 2500, width: 3}},
		"quota without a period":  {spec: `{"linux":{"resources":{"cpu":{"quota":100001}}}}`, want: want{milli: 1001, width: 2}},
		"no quota":                {spec: `{"linux":{"resources":{"cpu":{"quota":-1}}}}`},
		"absurd shares":           {spec: `{"linux":{"resources":{"cpu":{"shares":18446744073709551615}}}}`, want: want{milli: 8192000}},
		"absurd":                  {spec: `{"linux":{"resources":{"cpu":{"shares":18446744073709551615,"quota":9223372036854775807,"period":1}}}}`, want: want{milli: 8192000, width: 8192, keep: "limit"}},

		"ctr --cpuset-cpus":   {spec: `{"linux":{"resources":{"cpu":{"cpus":"0-3"}}}}`, want: want{granted: "0-3"}},
		"ctr --cpuset-mems":   {spec: `{"linux":{"resources":{"cpu":{"mems":"1"}}}}`, want: want{mems: "1"}},
		"mems that are not":   {settings: Settings{MemoryPolicy: "bind"}, spec: `{"linux":{"resources":{"cpu":{"mems":"7"}}}}`},
		"mems, bound":         {settings: Settings{MemoryPolicy: "bind"}, spec: `{"linux":{"resources":{"cpu":{"mems":"1"}}}}`, want: want{mems: "1", memory: numa.BindMemory}},
		"memory manager":      {settings: Settings{MemoryPolicy: "bind"}, spec: `{` + container + `,"linux":{"resources":{"cpu":{"mems":"1"}}}}`, want: want{pod: "pod", mems: "1"}},
		"its own mem. policy": {settings: Settings{MemoryPolicy: "interleave"}, spec: `{"linux":{"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0"}}}`},
		"parent":              {spec: `{"linux":{"resources":{"cpu":{"cpus":"0-3,60"}}}}`, parent: "2-50", want: want{granted: "2-3"}},
		"parent, offline":     {spec: `{}`, parent: "90-120", want: want{granted: "90-95"}},

		"kubelet: exclusive":    {spec: `{` + container + `,"linux":{"resources":{"cpu":{"shares":2048,"quota":-1,"period":100000,"cpus":"1,49"}}}}`, want: want{pod: "pod", milli: 2000, granted: "1,49", keep: "kubelet", exclusive: true}},
		"user: no quota, cpus":  {spec: `{"linux":{"resources":{"cpu":{"quota":-1,"cpus":"1,49"}}}}`, want: want{granted: "1,49"}},
		"DRA":                   {spec: `{` + container + `,"process":{"env":["A=b","DRA_CPUSET_c=1,49"]},"linux":{"resources":{"cpu":{"cpus":"1,49"}}}}`, want: want{pod: "pod", granted: "1,49", keep: "DRA"}},
		"annotation none":       {settings: Settings{Policy: "none"}, spec: `{}`, want: want{keep: "none"}},
		"limit as wide as that": {spec: `{"linux":{"resources":{"cpu":{"quota":150000,"cpus":"1,49"}}}}`, want: want{milli: 1500, width: 2, granted: "1,49", keep: "limit"}},

		"memory limit":          {spec: `{"linux":{"resources":{"memory":{"limit":1048576}}}}`, want: want{bytes: 1 << 20}},
		"memory: no limit":      {spec: `{"linux":{"resources":{"memory":{"limit":-1}}}}`},
		"memory: v1's no limit": {spec: `{"linux":{"resources":{"memory":{"limit":9223372036854771712}}}}`},
		"memory.min":            {spec: `{"linux":{"resources":{"unified":{"memory.min":"4096","memory.low":"8192"}}}}`, want: want{bytes: 4096}},
		"memory.low":            {spec: `{"linux":{"resources":{"unified":{"memory.min":"0","memory.low":"8192"}}}}`, want: want{bytes: 8192}},
		"OOM: guaranteed":       {spec: `{` + container + `,"process":{"oomScoreAdj":-997}}`, want: want{pod: "pod"}},
		"OOM: best effort":      {spec: `{` + container + `,"process":{"oomScoreAdj":1000}}`, want: want{pod: "pod"}},
		"OOM: not kubelet's":    {spec: `{"process":{"oomScoreAdj":500}}`},
		"huge pages": {spec: `{"linux":{"resources":{"hugepageLimits":[{"pageSize":"2MB","limit":4194304},{"pageSize":"1GB","limit":0},{"pageSize":"64KB","limit":65536},{"pageSize":"x","limit":1}]}}}`,
			want: want{huge: map[int64]int64{2 << 20: 4 << 20, 64 << 10: 64 << 10}}},

		"dedicated":        {settings: Settings{CPUPolicy: "dedicated"}, spec: `{}`, want: want{width: 1, cpu: numa.Dedicated}},
		"dedicated: 1500m": {settings: Settings{CPUPolicy: "dedicated"}, spec: `{` + container + `,"linux":{"resources":{"cpu":{"shares":1536}}}}`, want: want{pod: "pod", milli: 1500, width: 2, cpu: numa.Dedicated}},
		"dedicated: bound": {settings: Settings{CPUPolicy: "dedicated", MaxDedicated: 1}, spec: `{"linux":{"resources":{"cpu":{"quota":200000}}}}`, want: want{milli: 2000, width: 2, missed: "allows 1"}},
		"dedicated: all":   {settings: Settings{CPUPolicy: "dedicated"}, spec: `{"linux":{"resources":{"cpu":{"quota":200000,"cpus":"0-1"}}}}`, want: want{milli: 2000, width: 2, granted: "0-1", cpu: numa.Dedicated}},

		"sandbox": {
			settings: Settings{CPUPolicy: "dedicated", Policy: "single-numa-node", MemoryPolicy: "bind"},
			spec: `{"annotations":{"io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-id":"pod","io.kubernetes.cri.sandbox-cpu-shares":"3072",
				"io.kubernetes.cri.sandbox-cpu-quota":"350000","io.kubernetes.cri.sandbox-cpu-period":"100000","io.kubernetes.cri.sandbox-memory":"1048576"},
				"linux":{"resources":{"cpu":{"shares":2}}}}`,
			want: want{pod: "pod", sandbox: true, milli: 3000, width: 4, bytes: 1 << 20},
		},
		"sandbox without totals": {
			spec: `{"annotations":{"io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-id":"pod","io.kubernetes.cri.sandbox-cpu-shares":"x"}}`,
			want: want{pod: "pod", sandbox: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := r5(t)
			if c.parent != "" {
				m.cpus = set(t, c.parent)
			}
			a, err := ask(parse(t, c.spec), c.settings, m)
			must(t, err)
			c.want.check(t, a)
		})
	}
}

func (w want) check(t *testing.T, a asked) {
	t.Helper()
	if a.Milli != w.milli || a.Width != w.width || a.Bytes != w.bytes {
		t.Errorf("asks for %d mCPU, width %d, %d bytes; want %d, %d, %d", a.Milli, a.Width, a.Bytes, w.milli, w.width, w.bytes)
	}
	if len(a.Hugepages) != len(w.huge) {
		t.Errorf("huge pages %v, want %v", a.Hugepages, w.huge)
	}
	for size, bytes := range w.huge {
		if a.Hugepages[size] != bytes {
			t.Errorf("huge pages %v, want %v", a.Hugepages, w.huge)
		}
	}
	if len(a.Devices) != len(w.devices) || a.Pod != w.pod || a.sandbox != w.sandbox {
		t.Errorf("devices %v, pod %q, sandbox %v; want %v, %q, %v", a.Devices, a.Pod, a.sandbox, w.devices, w.pod, w.sandbox)
	}
	if w.granted == "" && w.milli < mostCPUs && a.Granted.Len() < 6 {
		t.Errorf("granted %s, want all", a.Granted)
	}
	if w.granted != "" && a.Granted.String() != w.granted {
		t.Errorf("granted %s, want %s", a.Granted, w.granted)
	}
	if mems := a.Mems.String(); w.mems != "" && mems != w.mems || w.mems == "" && mems != "0-1" {
		t.Errorf("memory nodes %s, want %s", mems, w.mems)
	}
	if a.CPU != w.cpu || a.Memory != w.memory {
		t.Errorf("CPU policy %d, memory policy %d; want %d, %d", a.CPU, a.Memory, w.cpu, w.memory)
	}
	if !strings.Contains(a.keep, w.keep) || (w.keep == "") != (a.keep == "") || a.exclusive != w.exclusive {
		t.Errorf("kept because %q, exclusive %v; want %q, %v", a.keep, a.exclusive, w.keep, w.exclusive)
	}
	if missed := strings.Join(a.missed, ";"); !strings.Contains(missed, w.missed) || (w.missed == "") != (missed == "") {
		t.Errorf("missed %q, want %q", missed, w.missed)
	}
}

// TestAskOOMScore estimates what kubelet has hidden: half of the machine.
func TestAskOOMScore(t *testing.T) {
	m := r5(t)
	a, err := ask(parse(t, `{`+container+`,"process":{"oomScoreAdj":500}}`), Settings{}, m)
	must(t, err)
	total := m.topology.Nodes[0].Memory + m.topology.Nodes[1].Memory
	if off := a.Bytes - total/2; off > total/oomScale || off < -total/oomScale {
		t.Errorf("%d bytes of %d", a.Bytes, total)
	}
}

func TestAskFails(t *testing.T) {
	for name, c := range map[string]struct{ spec, parent, says string }{
		"no CPU of the parent's": {`{"linux":{"resources":{"cpu":{"cpus":"0-3"}}}}`, "4-7", "4-7"},
		"no CPU online":          {`{"linux":{"resources":{"cpu":{"cpus":"200"}}}}`, "", "200"},
		"no list of CPUs":        {`{"linux":{"resources":{"cpu":{"cpus":"x"}}}}`, "", "cpu.cpus"},
		"no list of nodes":       {`{"linux":{"resources":{"cpu":{"mems":"x"}}}}`, "", "cpu.mems"},
	} {
		t.Run(name, func(t *testing.T) {
			m := r5(t)
			if c.parent != "" {
				m.cpus = set(t, c.parent)
			}
			if _, err := ask(parse(t, c.spec), Settings{}, m); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
		})
	}
}

// devices is a sysfs with devices on nodes 1 and 2.
func devices() fstest.MapFS {
	const (
		card = "devices/pci0000:80/0000:80:02.0/0000:81:00.0"
		disk = "devices/pci0000:00/0000:00:04.0"
	)
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text + "\n")} }
	link := func(to string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(to), Mode: 0o777 | fs.ModeSymlink}
	}
	return fstest.MapFS{
		"dev/char/195:0":                              link("../../" + card + "/drm/card0"),
		"dev/char/1:3":                                link("../../devices/virtual/mem/null"),
		"dev/char/9:9":                                link("../../../etc"),
		"dev/block/259:0":                             link("../../" + disk + "/nvme/nvme0/nvme0n1"),
		card + "/numa_node":                           file("1"),
		card + "/drm/card0/dev":                       file("195:0"),
		disk + "/numa_node":                           file("-1"),
		"devices/pci0000:00/numa_node":                file("2"),
		disk + "/nvme/nvme0/nvme0n1/dev":              file("259:0"),
		"devices/virtual/mem/null/dev":                file("1:3"),
		"kernel/iommu_groups/7/devices/a/numa_node":   file("1"),
		"kernel/iommu_groups/7/devices/b/numa_node":   file("-1"),
		"kernel/iommu_groups/7/devices/c/numa_node":   file("x"),
		"kernel/iommu_groups/7/devices/d/other":       file("1"),
		"kernel/iommu_groups/8/devices/readme.txt/no": file(""),
	}
}

func TestDeviceNodes(t *testing.T) {
	for text, want := range map[string][]int{
		`[]`: nil,
		`[{"type":"c","path":"/dev/dri/card0","major":195,"minor":0}]`:    {1},
		`[{"type":"b","path":"/dev/nvme0n1","major":259,"minor":0}]`:      {2}, // by a device above it
		`[{"type":"c","path":"/dev/null","major":1,"minor":3}]`:           nil,
		`[{"type":"c","path":"/dev/x","major":9,"minor":9}]`:              nil, // out of sysfs
		`[{"type":"c","path":"/dev/x","major":8,"minor":8}]`:              nil,
		`[{"type":"p","path":"/dev/pipe"}]`:                               nil,
		`[{"type":"c","path":"/dev/vfio/7","major":243,"minor":0}]`:       {1},
		`[{"type":"c","path":"/dev/vfio/vfio","major":10,"minor":196}]`:   nil,
		`[{"type":"c","path":"/dev/vfio/../7","major":10,"minor":196}]`:   nil,
		`[{"type":"c","path":"/dev/vfio/8"},{"type":"c","major":195}]`:    {1},
		`[` + strings.Repeat(`{"type":"c","major":195},`, 32) + `{}]`:     nil, // privileged
		`[` + strings.Repeat(`{"type":"b","major":259},`, 1) + `{}]`:      {2},
		`[{"type":"u","path":"/dev/dri/card0","major":195,"minor":0}]`:    {1},
		`[{"type":"c","path":"/dev/vfio/99999999999","major":1,"min":1}]`: nil,
	} {
		got := deviceNodes(devices(), parse(t, `{"linux":{"devices":`+text+`}}`))
		if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("%.60s: nodes %v, want %v", text, got, want)
		}
	}
}

// FuzzAsk holds what a request promises, whatever the spec and the annotations.
func FuzzAsk(f *testing.F) {
	for _, spec := range []string{
		`{}`, `{"linux":{}}`, `{"linux":{"resources":{"cpu":{"cpus":"0-3","mems":"0","quota":-1,"shares":3}}},` + container + `}`,
		`{"annotations":{"numa.containerd.io/policy":"none","io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-cpu-shares":"77"}}`,
		`{"linux":{"devices":[{"type":"c","major":195,"path":"/dev/vfio/7"}],"resources":{"hugepageLimits":[{"pageSize":"2MB","limit":3}]}}}`,
	} {
		f.Add([]byte(spec), true)
	}
	m := r5(f)
	m.sysfs = devices()
	f.Fuzz(func(t *testing.T, text []byte, dedicated bool) {
		spec := new(specs.Spec)
		if json.Unmarshal(text, spec) != nil {
			return
		}
		s := Settings{Annotations: []string{keyPolicy, keyCPU, keyThread, keyCache, keyMemory}}
		if dedicated {
			s.CPUPolicy = "dedicated"
		}
		s, ignored, err := s.annotated(spec.Annotations)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalidArgument) || len(err.Error()) > 1000 {
				t.Errorf("annotations: %.1000v", err)
			}
			return
		}
		if len(ignored) > maxIgnored {
			t.Errorf("%d annotations ignored", len(ignored))
		}
		a, err := ask(digest(spec), s, m)
		if err != nil {
			return
		}
		if a.Granted.IsEmpty() || !a.Granted.IsSubset(m.cpus) || !a.Mems.IsSubset(m.mems) || a.Mems.IsEmpty() {
			t.Errorf("granted %q, %q", a.Granted, a.Mems)
		}
		if a.Milli < 0 || a.Milli > mostCPUs*milliPerCPU || a.Width < 0 || a.Width > mostCPUs || a.Bytes < 0 {
			t.Errorf("asks for %d, %d, %d", a.Milli, a.Width, a.Bytes)
		}
		if a.keep != "" && (a.Policy != numa.Unplaced || a.CPU != numa.Shared) {
			t.Errorf("kept and placed: %+v", a)
		}
		if p, err := m.topology.Place(numa.State{}, a.Request); err == nil && (p.CPUs.IsEmpty() || !p.CPUs.IsSubset(a.Granted)) {
			t.Errorf("placed on %q, granted %q", p.CPUs, a.Granted)
		}
	})
}
