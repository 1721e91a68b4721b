package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/test/rig"
)

// setOnline takes a CPU offline or back.
func setOnline(t *testing.T, cpu int, online bool) {
	t.Helper()
	text := "0"
	if online {
		text = "1"
	}
	if err := os.WriteFile(fmt.Sprintf("%s/cpu/cpu%d/online", sysDevices, cpu), []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// restoreParent gives the containers' parent what v1 took from it, as an
// operator does for kubelet's cgroups: a shim leaves these alone.
func (s *scene) restoreParent() {
	s.t.Helper()
	if rig.Unified() {
		return
	}
	const file = "cpuset.cpus"
	all := readText(s.t, rig.CgroupFile("cpuset", "/", file))
	s.must(os.WriteFile(rig.CgroupFile("cpuset", "/"+s.Name(), file), []byte(all), 0))
}

// TestPlacementHotplug takes a CPU from under containers and gives it back. On
// v1 the kernel strikes it from all cpusets below the root for good, cpuset(7).
func TestPlacementHotplug(t *testing.T) {
	s, nodes := requireNUMA(t)
	requireOwnMachine(t)
	c := s.run(idle, limit(2), wishes(dedicated))
	shared := s.run(idle, withSpec(oci.WithCPUShares(512)))
	first := c.inForce("on one node", func(p placed) bool { return onOneNode(p) && p.CPUs.Len() == 2 })
	gone := first.CPUs.Max()
	if gone == 0 {
		t.Fatal("CPU 0 cannot be taken offline")
	}

	setOnline(t, gone, false)
	t.Cleanup(func() {
		setOnline(t, gone, true)
		s.restoreParent()
	})
	rest := first.CPUs.Difference(cpuset.Of(gone))
	cpus, err := c.cpuset([2]string{"cpuset.effective_cpus", "cpuset.cpus.effective"})
	s.must(err)
	want(t, "CPUs while one is offline", cpus.String(), rest.String())
	memory := int64(256 * mib)
	for _, c := range []*container{c, shared} { // a resize meanwhile
		c.update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}})
	}
	late := s.run(idle, limit(1), wishes(dedicated))
	late.inForce("on a CPU that is there", func(p placed) bool {
		return onOneNode(p) && p.CPUs.Len() == 1 && !p.CPUs.Contains(gone) && !p.CPUs.Intersects(rest)
	})

	setOnline(t, gone, true)
	s.restoreParent()
	c.update(cpuUpdate(2, nodes[0].cpus.Union(nodes[1].cpus)))
	c.inForce("on two CPUs again", func(p placed) bool { return onOneNode(p) && p.CPUs.Len() == 2 })
	memory = 300 * mib
	shared.update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}})
	shared.inForce("on one node", onOneNode)
	for _, c := range []*container{c, shared, late} {
		c.stop()
	}
}
