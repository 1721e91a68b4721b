package cgroups

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	statsv1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	"github.com/containerd/cgroups/v3/cgroup2"
	statsv2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// The messages are compared with what containerd/cgroups makes of the same
// files, since that is what the runc shim answers.

func TestStatsV1AsUpstream(t *testing.T) {
	controllers := []string{"cpu", "cpuacct", "memory", "pids", "blkio", "freezer", "devices", "cpuset"}
	for _, controller := range []string{"hugetlb", "rdma"} {
		// Where they are mounted upstream tells of them, even of the root.
		if exists(filepath.Join(mountRoot, controller, "cgroup.procs")) {
			controllers = append(controllers, controller)
		}
	}
	c, dirs := makeV1(t, controllers...)
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // v1 lets nobody in without
		text, err := os.ReadFile(filepath.Join(mountRoot, "cpuset", file))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dirs["cpuset"], file), string(text))
	}
	write(t, filepath.Join(dirs["memory"], "memory.limit_in_bytes"), memoryLimit)
	write(t, filepath.Join(dirs["pids"], "pids.max"), "17")
	var all []string
	for _, dir := range dirs {
		all = append(all, dir)
	}
	cmd := start(t, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo >&2; exec sleep 1000", all...)
	eventually(t, "the process sleeps", func() bool {
		name, _ := os.ReadFile(filepath.Join("/proc", pid(cmd), "comm"))
		return strings.TrimSpace(string(name)) == "sleep"
	})

	upstream, err := cgroup1.Load(cgroup1.PidPath(cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded.dirs) != len(dirs) {
		t.Errorf("Load found %v, want %v", loaded.dirs, dirs)
	}
	for controller, dir := range dirs {
		if loaded.dirs[controller] != dir {
			t.Errorf("%s: Load found %q, want %q", controller, loaded.dirs[controller], dir)
		}
	}
	ours := agrees(t, c, func() (proto.Message, error) { return upstream.Stat(cgroup1.IgnoreNotExist) })
	m := ours.(*statsv1.Metrics)
	if m.CPU.Usage.Total == 0 || m.Memory.Usage.Usage == 0 || m.Memory.Usage.Limit != 8<<20 ||
		m.Pids.Current != 1 || m.Pids.Limit != 17 || m.Blkio == nil || m.MemoryOomControl == nil {
		t.Errorf("implausible usage:\n%s", prototext.Format(m))
	}
}

func TestStatsV2AsUpstream(t *testing.T) {
	_, dir := makeV2(t)
	start(t, "exec sleep 1000", dir)
	fixture, err := filepath.Abs("testdata/v2")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{fixture, dir, t.TempDir()} {
		upstream, err := cgroup2.Load("/"+filepath.Base(dir), cgroup2.WithMountpoint(filepath.Dir(dir)))
		if err != nil {
			t.Fatal(err)
		}
		c := load(t, map[string]string{unified: dir})
		agrees(t, c, func() (proto.Message, error) {
			m, err := upstream.Stat()
			if err == nil { // it has the order of the directory
				slices.SortFunc(m.Hugetlb, func(a, b *statsv2.HugeTlbStat) int {
					return strings.Compare(a.Pagesize, b.Pagesize)
				})
			}
			return m, err
		})
	}
}

// agrees returns our usage of c once it equals upstream's. That may take some
// attempts: the kernel's counters arrive late, and averages move.
func agrees(t *testing.T, c *Cgroup, upstream func() (proto.Message, error)) proto.Message {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		theirs, err := upstream()
		if err != nil {
			t.Fatal(err)
		}
		ours, err := c.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if proto.Equal(ours, theirs) {
			return ours
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v\nours:\n%s\nupstream:\n%s", c.dirs, prototext.Format(ours), prototext.Format(theirs))
		}
	}
}

// TestFixturesV1AsUpstream has every file with numbers of its own, and for
// blkio the files of the CFQ scheduler and those without.
func TestFixturesV1AsUpstream(t *testing.T) {
	for _, root := range []string{"testdata/v1", "testdata/v1/cfq"} {
		root, err := filepath.Abs(root)
		if err != nil {
			t.Fatal(err)
		}
		upstream := map[string]func(string, *statsv1.Metrics) error{
			"blkio":   cgroup1.NewBlkio(root).Stat,
			"cpu":     cgroup1.NewCpu(root).Stat,
			"cpuacct": cgroup1.NewCpuacct(root).Stat,
			"memory":  cgroup1.NewMemory(root).Stat,
			"pids":    cgroup1.NewPids(root).Stat,
			"rdma":    cgroup1.NewRdma(root).Stat,
		}
		if hugetlb, err := cgroup1.NewHugetlb(root); err == nil && slices.Equal(hugePageSizes(), []string{"1GB", "2MB"}) {
			upstream["hugetlb"] = hugetlb.Stat // its fixture has the sizes of x86
		}
		dirs := make(map[string]string)
		theirs := &statsv1.Metrics{CPU: &statsv1.CPUStat{Throttling: &statsv1.Throttle{}, Usage: &statsv1.CPUUsage{}}}
		for controller, stat := range upstream {
			dir := filepath.Join(root, controller)
			if !exists(dir) {
				continue
			}
			dirs[controller] = dir
			if err := stat("", theirs); err != nil {
				t.Fatal(err)
			}
		}
		agrees(t, load(t, dirs), func() (proto.Message, error) { return theirs, nil })
	}
}

func TestFinalOutlivesTheCgroup(t *testing.T) {
	c, dirs := makeV1(t, "memory", "cpuacct")
	write(t, filepath.Join(dirs["memory"], "memory.limit_in_bytes"), memoryLimit)
	runOOM(t, dirs["memory"])
	if err := c.Final(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		eventually(t, "the cgroup is removed", func() bool { return syscall.Rmdir(dir) == nil })
	}
	m, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	// What CRI does with the answer.
	wire, err := typeurl.MarshalAny(m)
	if err != nil {
		t.Fatal(err)
	}
	if wire.GetTypeUrl() != "io.containerd.cgroups.v1.Metrics" {
		t.Errorf("type %q", wire.GetTypeUrl())
	}
	back, err := typeurl.UnmarshalAny(wire)
	if err != nil {
		t.Fatal(err)
	}
	if kills := back.(*statsv1.Metrics).GetMemoryOomControl().GetOomKill(); kills != 1 {
		t.Errorf("%d OOM kills", kills)
	}
}

func TestRemovedCgroupIsEmpty(t *testing.T) {
	v1, dirs := makeV1(t, "memory", "cpu", "pids", "freezer", "blkio")
	v2, dir := makeV2(t)
	for _, dir := range append([]string{dir, dirs["memory"], dirs["cpu"], dirs["pids"], dirs["freezer"]}, dirs["blkio"]) {
		if err := syscall.Rmdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []*Cgroup{v1, v2} {
		if m, err := c.Stats(); err != nil || m == nil {
			t.Errorf("Stats: %v, %v", m, err)
		}
		if pids := pidsOf(t, c); len(pids) != 0 {
			t.Errorf("Pids: %v", pids)
		}
		if err := c.Kill(); err != nil {
			t.Errorf("Kill: %v", err)
		}
		if err := c.Final(); err != nil {
			t.Errorf("Final: %v", err)
		}
	}
}

// TestStatsDuringRemoval reads while the cgroup comes and goes.
func TestStatsDuringRemoval(t *testing.T) {
	c, dirs := makeV1(t, "memory")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 300 {
			syscall.Rmdir(dirs["memory"])
			os.Mkdir(dirs["memory"], 0o755)
		}
	}()
	for {
		if _, err := c.Stats(); err != nil {
			t.Errorf("Stats: %v", err)
		}
		if _, err := c.Pids(); err != nil {
			t.Errorf("Pids: %v", err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestUnreadableFileIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "memory.stat"), 0o755); err != nil { // EISDIR
		t.Fatal(err)
	}
	for _, controller := range []string{"memory", unified} {
		_, err := load(t, map[string]string{controller: dir}).Stats()
		if err == nil || !strings.Contains(err.Error(), "memory.stat") {
			t.Errorf("%q: %v", controller, err)
		}
	}
}

func TestPageSizeNames(t *testing.T) {
	for kilobytes, want := range map[uint64]string{64: "64KB", 2048: "2MB", 32768: "32MB", 1 << 20: "1GB", 16 << 20: "16GB"} {
		if got := pageSizeName(kilobytes); got != want {
			t.Errorf("%d kB: %s, want %s", kilobytes, got, want)
		}
	}
}

// FuzzFiles feeds every parser of a stats file: none may panic.
func FuzzFiles(f *testing.F) {
	for _, pattern := range []string{"testdata/v2/*", "testdata/v1/blkio/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatal(pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	f.Fuzz(func(_ *testing.T, text string) {
		parseKeyed(text)
		parseIO(text)
		parseRdma(text)
		parseBlkio(text, nil)
		parsePressure(text)
		parseCgroupMounts([]byte(text))
		parseMembership([]byte(text))
		appendPids(nil, text)
	})
}

func BenchmarkStatsV1(b *testing.B) {
	c, err := LoadPaths(map[string]string{
		"memory": mountRoot + "/memory", "cpu": mountRoot + "/cpu", "cpuacct": mountRoot + "/cpuacct",
		"pids": mountRoot + "/pids", "blkio": mountRoot + "/blkio",
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Stats(); err != nil {
			b.Fatal(err)
		}
	}
}
