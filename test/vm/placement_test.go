package vm_test

import (
	"testing"

	"containerd-shim-numa-v1/test/vm"
)

// placementMachine is two sockets of two cores of two threads, and a node of
// memory only that is nearer to the first: what placement has to tell apart,
// and nodes small enough for a test to fill.
var placementMachine = vm.Topology{
	Sockets: 2, Cores: 2, Threads: 2,
	Nodes:     []vm.Node{{CPUs: "0-3", Memory: 1280}, {CPUs: "4-7", Memory: 1280}, {Memory: 256}},
	Distances: [][]int{{10, 21, 17}, {21, 10, 28}, {17, 28, 10}},
}

// TestPlacement runs the end-to-end tests of placement on a NUMA machine, with
// cgroup v2 and v1. Of Debian's kernels only 6.1 has v1's cpuset and memory.
func TestPlacement(t *testing.T) {
	b := endToEnd(t)
	b.Topology = placementMachine
	b.Command = append(b.Command, "-test.run=^TestPlacement", "-own-machine")
	for _, test := range []struct {
		name, series string
		v1           bool
	}{
		{"v2", newest(), false},
		{"v2 oldest", kernels()[0], false},
		{"v1", kernels()[0], true},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := b
			b.Kernel, b.CgroupV1 = test.series, test.v1
			runTests(t, b, "TestPlacementInForce", "TestPlacementMemory", "TestPlacementBeyondTheNode",
				"TestPlacementUpdates", "TestPlacementUnderAParent", "TestPlacementHotplug")
		})
	}
}
