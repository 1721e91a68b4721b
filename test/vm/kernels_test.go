package vm_test

import (
	"testing"

	"containerd-shim-numa-v1/test/vm"
)

// hostTools are what tests of the product look for on a host. busybox's id
// gives up what a set-user-ID file gives it.
var hostTools = []string{"/usr/bin/id", "/usr/sbin/mkfs.ext4"}

// TestRootfs runs the tests of package rootfs under each kernel.
func TestRootfs(t *testing.T) {
	program := build(t, "../../rootfs", productTags, "test", "-c", ".")
	for _, series := range kernels() {
		t.Run(series, func(t *testing.T) {
			runTests(t, vm.Boot{
				Kernel:   series,
				Topology: vm.Topology{Cores: 2},
				Files:    map[string]string{"/test/rootfs.test": program},
				Programs: hostTools,
				Dir:      "/test",
				Command:  []string{"./rootfs.test", "-test.v=test2json"},
			}, "TestOverlay", "TestFilesystems", "TestHandover")
		})
	}
}

// TestCgroups runs the tests of package cgroups on cgroup v2 under the oldest
// and the newest kernel, and on v1 under the oldest, which still has all of it.
func TestCgroups(t *testing.T) {
	program := build(t, "../../cgroups", productTags, "test", "-c", ".")
	for _, test := range []struct {
		name, series string
		v1           bool
		must         []string
	}{
		{"v2 oldest", kernels()[0], false, []string{"TestWatchV2", "TestKill/v2", "TestKillFrozen/v2", "TestStatsV2AsUpstream"}},
		{"v2 newest", newest(), false, []string{"TestWatchV2", "TestKill/v2", "TestKillFrozen/v2", "TestStatsV2AsUpstream"}},
		{"hybrid", kernels()[0], true, []string{"TestKill/v1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			runTests(t, vm.Boot{
				Kernel:   test.series,
				Topology: vm.Topology{Cores: 2},
				CgroupV1: test.v1,
				Files:    map[string]string{"/test/cgroups.test": program, "/test/testdata": "../../cgroups/testdata"},
				Dir:      "/test",
				Command:  []string{"./cgroups.test", "-test.v=test2json"},
			}, test.must...)
		})
	}
}
