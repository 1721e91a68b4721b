package cri

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

const mib = 1 << 20

// cgroup is one of the container's cgroup files, by its names in {v1, v2}.
func (s *scene) cgroup(c *kubelet.Container, controller string, v1, v2 string) string {
	s.t.Helper()
	value, err := rig.ReadCgroup(controller, c.Pod.Cgroup+"/"+c.ID, [2]string{v1, v2})
	s.must(err)
	return value
}

// wantResources looks at the container's cgroup: cpu shares (v1) or weight
// (v2), quota of the period, memory in bytes, CPUs.
func (s *scene) wantResources(c *kubelet.Container, shares, weight, quota int, memory int64, cpus string) {
	s.t.Helper()
	if rig.Unified() {
		want(s.t, "cpu.weight", s.cgroup(c, "", "", "cpu.weight"), fmt.Sprint(weight))
		want(s.t, "cpu.max", s.cgroup(c, "", "", "cpu.max"), fmt.Sprint(quota, " 100000"))
	} else {
		want(s.t, "cpu.shares", s.cgroup(c, "cpu", "cpu.shares", ""), fmt.Sprint(shares))
		want(s.t, "cpu.cfs_quota_us", s.cgroup(c, "cpu", "cpu.cfs_quota_us", ""), fmt.Sprint(quota))
	}
	want(s.t, "memory limit", s.cgroup(c, "memory", "memory.limit_in_bytes", "memory.max"), fmt.Sprint(memory))
	want(s.t, "cpuset", s.cgroup(c, "cpuset", "cpuset.cpus", "cpuset.cpus"), cpus)
}

// TestResources limits a container, changes the limits while it runs, and
// changes them back.
func TestResources(t *testing.T) {
	s := begin(t)
	all := s.cgroupOfRoot()
	c := s.run(s.pod(), "main", idle, kubelet.Resources(func(r *runtimeapi.LinuxContainerResources) {
		r.CpuShares, r.CpuQuota, r.MemoryLimitInBytes, r.CpusetCpus = 512, 50_000, 64*mib, all
	}))
	s.wantResources(c, 512, weightOf(512), 50_000, 64*mib, all)
	update := func(r *runtimeapi.LinuxContainerResources) {
		t.Helper()
		_, err := s.Runtime.UpdateContainerResources(s.ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: c.ID, Linux: r})
		s.must(err)
	}
	update(&runtimeapi.LinuxContainerResources{CpuPeriod: 100_000, CpuQuota: 75_000, CpuShares: 1024, MemoryLimitInBytes: 96 * mib, CpusetCpus: "0"})
	s.wantResources(c, 1024, weightOf(1024), 75_000, 96*mib, "0")
	want(t, "CPUs that the process has", s.shell(c, "grep Cpus_allowed_list /proc/1/status"), "Cpus_allowed_list:\t0")
	// As kubelet's CPU manager does: nothing but CPUs.
	update(&runtimeapi.LinuxContainerResources{CpusetCpus: all})
	s.wantResources(c, 1024, weightOf(1024), 75_000, 96*mib, all)
	status := s.status(c).Resources.GetLinux()
	want(t, "CRI's memory limit", status.GetMemoryLimitInBytes(), 96*mib)
	want(t, "CRI's CPUs", status.GetCpusetCpus(), all)
}

// cgroupOfRoot are the CPUs that there are, in the kernel's list form.
func (s *scene) cgroupOfRoot() string {
	s.t.Helper()
	cpus, err := rig.ReadCgroup("cpuset", "/", [2]string{"cpuset.cpus", "cpuset.cpus.effective"})
	s.must(err)
	return cpus
}

// weightOf is the cgroup v2 weight for v1 shares, as libcontainer converts
// them: the quadratic that runc 1.3.2 and later use keeps 1024 at 100.
func weightOf(shares int) int {
	return map[int]int{512: 59, 1024: 100}[shares]
}

// TestOutOfMemory tells a container that used more than it may from one that
// was killed.
func TestOutOfMemory(t *testing.T) {
	s := begin(t)
	p := s.pod()
	limit := kubelet.Resources(func(r *runtimeapi.LinuxContainerResources) {
		r.MemoryLimitInBytes, r.MemorySwapLimitInBytes = 32*mib, 32*mib
	})
	greedy := s.run(p, "greedy", []string{"/payload", "alloc", "256"}, limit)
	status := s.exited(greedy)
	want(t, "reason", status.Reason, "OOMKilled")
	want(t, "exit code", status.ExitCode, 128+int32(syscall.SIGKILL))

	// Not init but a child of it: the container goes on.
	parent := s.run(p, "parent", []string{"/bin/sh", "-c", "/payload alloc 256; echo child ended with $?; /payload wait"}, limit)
	s.must(parent.AwaitLog("child ended with 137"))
	want(t, "state", s.status(parent).State, runtimeapi.ContainerState_CONTAINER_RUNNING)

	modest := s.run(p, "modest", forever, limit)
	s.must(modest.Stop(s.ctx, 0))
	want(t, "reason of one that was stopped", s.exited(modest).Reason, "Error")
}

// TestStats asks for a container's and its pod's use of CPU and memory.
func TestStats(t *testing.T) {
	s := begin(t)
	p := s.pod()
	c := s.run(p, "main", []string{"/payload", "alloc", "20"})
	s.must(c.AwaitLog("allocated"))
	r, err := s.Runtime.ContainerStats(s.ctx, &runtimeapi.ContainerStatsRequest{ContainerId: c.ID})
	s.must(err)
	s.wantStats(r.Stats, c)

	list, err := s.Runtime.ListContainerStats(s.ctx, &runtimeapi.ListContainerStatsRequest{})
	s.must(err)
	want(t, "containers with stats", len(list.Stats), 1)
	s.wantStats(list.Stats[0], c)

	all, err := s.Runtime.ListPodSandboxStats(s.ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	s.must(err)
	want(t, "pods with stats", len(all.Stats), 1)
	one, err := s.Runtime.PodSandboxStats(s.ctx, &runtimeapi.PodSandboxStatsRequest{PodSandboxId: p.ID})
	s.must(err)
	for _, pod := range []*runtimeapi.PodSandboxStats{all.Stats[0], one.Stats} {
		want(t, "pod", pod.Attributes.Id, p.ID)
		if used := pod.Linux.Memory.GetWorkingSetBytes().GetValue(); used < 20*mib {
			t.Errorf("the pod uses %d bytes", used)
		}
		if pod.Linux.Cpu.GetUsageCoreNanoSeconds().GetValue() == 0 {
			t.Error("the pod has used no CPU time")
		}
		if pod.Linux.Network.GetDefaultInterface().GetRxBytes() == nil {
			t.Error("the pod's network has no counters")
		}
		want(t, "its containers", len(pod.Linux.Containers), 1)
		s.wantStats(pod.Linux.Containers[0], c)
	}
}

// wantStats sees plausible numbers of a container that has 20 MiB.
func (s *scene) wantStats(stats *runtimeapi.ContainerStats, c *kubelet.Container) {
	s.t.Helper()
	want(s.t, "container", stats.Attributes.Id, c.ID)
	if used := stats.Memory.GetWorkingSetBytes().GetValue(); used < 20*mib || used > 100*mib {
		s.t.Errorf("%s uses %d bytes", c.Config.Metadata.Name, used)
	}
	if stats.Cpu.GetUsageCoreNanoSeconds().GetValue() == 0 {
		s.t.Error("it has used no CPU time")
	}
	if !strings.Contains(stats.WritableLayer.GetFsId().GetMountpoint(), "overlayfs") {
		s.t.Errorf("its writable layer is %v", stats.WritableLayer)
	}
}
