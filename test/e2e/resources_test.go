package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	v2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/test/rig"
)

const mib = 1 << 20

// cgroupLimit is a limit as each cgroup version's file shows it.
type cgroupLimit struct {
	controller string
	file       [2]string // of v1, of v2
	text       [2]string
}

func (c *container) wantLimits(limits ...cgroupLimit) {
	c.t.Helper()
	for _, l := range limits {
		got, err := rig.ReadCgroup(l.controller, c.cgroup(), l.file)
		c.must(err)
		expected := l.text[0]
		if rig.Unified() {
			expected = l.text[1]
		}
		want(c.t, l.controller+" limit", got, expected)
	}
}

func memoryLimit(bytes int) cgroupLimit {
	s := fmt.Sprint(bytes)
	return cgroupLimit{"memory", [2]string{"memory.limit_in_bytes", "memory.max"}, [2]string{s, s}}
}

func cpuQuota(quota, period int) cgroupLimit {
	return cgroupLimit{"cpu", [2]string{"cpu.cfs_quota_us", "cpu.max"}, [2]string{fmt.Sprint(quota), fmt.Sprintf("%d %d", quota, period)}}
}

func pidsLimit(n int) cgroupLimit {
	s := fmt.Sprint(n)
	return cgroupLimit{"pids", [2]string{"pids.max", "pids.max"}, [2]string{s, s}}
}

func cpus(set string) cgroupLimit {
	return cgroupLimit{"cpuset", [2]string{"cpuset.cpus", "cpuset.cpus"}, [2]string{set, set}}
}

func TestLimitsOfTheSpec(t *testing.T) {
	s := begin(t)
	c := s.run(idle, withSpec(oci.WithMemoryLimit(96*mib), oci.WithCPUCFS(30000, 100000), oci.WithPidsLimit(77), oci.WithCPUs("0")))
	c.wantLimits(memoryLimit(96*mib), cpuQuota(30000, 100000), pidsLimit(77), cpus("0"))
	c.stop()
}

func TestUpdateOfLimits(t *testing.T) {
	s := begin(t)
	c := s.run(idle, withSpec(oci.WithMemoryLimit(96*mib)))
	memory, quota, period, pids := int64(128*mib), int64(25000), uint64(50000), int64(55)
	s.must(c.task.Update(s.ctx, containerd.WithResources(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &memory},
		CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period, Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: &pids},
	})))
	c.wantLimits(memoryLimit(128*mib), cpuQuota(25000, 50000), pidsLimit(55), cpus("0"))
	// The limit holds for the processes: no fork beyond it.
	pids = 1
	s.must(c.task.Update(s.ctx, containerd.WithResources(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}})))
	c.wantLimits(memoryLimit(128*mib), pidsLimit(1))
	c.stop()
}

func TestUpdateOfAStoppedTaskFails(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/bin/true"})
	c.status()
	memory := int64(64 * mib)
	if err := c.task.Update(s.ctx, containerd.WithResources(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}})); err == nil {
		t.Error("a stopped task was updated")
	}
	c.remove()
}

// usage is what Stats tells of a container, whatever the cgroup version.
type usage struct{ memory, memoryLimit, pids, cpu uint64 }

func (c *container) usage() usage {
	c.t.Helper()
	metric, err := c.task.Metrics(c.ctx)
	c.must(err)
	v, err := typeurl.UnmarshalAny(metric.Data)
	c.must(err)
	switch m := v.(type) {
	case *v1.Metrics:
		return usage{m.Memory.Usage.Usage, m.Memory.Usage.Limit, m.Pids.Current, m.CPU.Usage.Total}
	case *v2.Metrics:
		return usage{m.Memory.Usage, m.Memory.UsageLimit, m.Pids.Current, m.CPU.UsageUsec}
	}
	c.t.Fatalf("metrics are of type %T", v)
	panic("unreachable")
}

func TestStats(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/payload", "alloc", "32"}, withSpec(oci.WithMemoryLimit(256*mib)))
	c.awaitOutput("allocated")
	u := c.usage()
	if u.memory < 32*mib || u.memory > 256*mib {
		t.Errorf("memory usage is %d bytes after 32 MiB were touched", u.memory)
	}
	want(t, "memory limit", u.memoryLimit, 256*mib)
	if u.pids == 0 || u.cpu == 0 {
		t.Errorf("metrics lack pids or CPU time: %+v", u)
	}
	c.stop()
}

// TestOOMIsToldBeforeExit has a container exceed its memory limit. The scene's
// check of events sees that the OOM event came first.
func TestOOMIsToldBeforeExit(t *testing.T) {
	s := begin(t)
	for range 3 {
		c := s.run([]string{"/payload", "alloc", "256"}, withSpec(oci.WithMemoryLimit(32*mib)))
		want(t, "exit status", c.status(), 137)
		c.remove()
		if _, err := s.events.Await(eventBound, "/tasks/oom", c.ID(), ""); err != nil {
			t.Error(err)
		}
	}
}

// TestOOMOfAnExec kills a process other than init: the container lives on and
// the event comes all the same.
func TestOOMOfAnExec(t *testing.T) {
	s := begin(t)
	c := s.run(idle, withSpec(oci.WithMemoryLimit(32*mib)))
	p := c.exec("greedy", []string{"/payload", "alloc", "256"})
	want(t, "exit status of exec", p.status(), 137)
	p.delete()
	if _, err := s.events.Await(eventBound, "/tasks/oom", c.ID(), ""); err != nil {
		t.Error(err)
	}
	s.must(c.Kill(s.ctx, syscall.SIGTERM))
	want(t, "exit status", c.finish(), 0)
}

func TestCtrMetrics(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	r := s.daemon.RunCtr(s.ctx, "tasks", "metrics", c.ID())
	s.must(r.Err)
	for _, text := range []string{c.ID(), "memory.", "cpu", "pids.current"} {
		if !strings.Contains(r.Stdout, text) {
			t.Errorf("ctr tasks metrics lacks %q:\n%s", text, r.Stdout)
		}
	}
	c.stop()
}

// smallMemory is a memory limit, in bytes, under which a container must start:
// what it leaves is for libcontainer's init, which is the shim's program once
// more. It shows when that comes to need more.
const smallMemory = 12 * mib

func TestSmallMemoryLimit(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/bin/sleep", "1000"}, withSpec(oci.WithMemoryLimit(smallMemory)))
	p := c.exec("e", []string{"/bin/true"})
	want(t, "exit status of exec", p.status(), 0)
	p.delete()
	c.stop()
}
