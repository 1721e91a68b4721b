package vm_test

import (
	"flag"
	"testing"
	"time"

	"containerd-shim-numa-v1/test/vm"
)

// hostTools are what tests of the product look for on a host. busybox's id
// gives up what a set-user-ID file gives it.
var hostTools = []string{"/usr/bin/id", "/usr/sbin/mkfs.ext4", "/usr/bin/mkfs.erofs"}

var quickFlag = flag.Bool("quick", false, "a selection of package rootfs' tests, a fifth of all in time")

// quickTests make root filesystems of each kind, in the ways that the guest's
// kernel has, and hand them over.
const quickTests = "^(TestOverlay|TestReadOnlyView|TestErofs$|TestFilesystems|TestBind|TestHandover|TestAttachDetach|TestWorkshop)"

// rootfsTimeout is generous: with other work on two cores a guest takes ten
// times as long as without.
const rootfsTimeout = 30 * time.Minute

// TestRootfs runs the tests of package rootfs under each kernel.
func TestRootfs(t *testing.T) {
	program := build(t, "../../rootfs", productTags, "test", "-c", ".")
	command := []string{"./rootfs.test", "-test.v=test2json"}
	if *quickFlag {
		command = append(command, "-test.run="+quickTests)
	}
	for _, series := range kernels() {
		t.Run(series, func(t *testing.T) {
			runTests(t, vm.Boot{
				Kernel:   series,
				Topology: vm.Topology{Cores: 2},
				Files:    map[string]string{"/test/rootfs.test": program},
				Programs: hostTools,
				Dir:      "/test",
				Command:  command,
				Timeout:  rootfsTimeout,
			}, "TestOverlay", "TestFilesystems", "TestHandover", "TestErofs")
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
		{"v2 oldest", kernels()[0], false, []string{"TestWatchV2", "TestKill/v2", "TestKillFrozen/v2", "TestStatsV2AsUpstream", "TestParentEffective"}},
		{"v2 newest", newest(), false, []string{"TestWatchV2", "TestKill/v2", "TestKillFrozen/v2", "TestStatsV2AsUpstream", "TestParentEffective"}},
		{"hybrid", kernels()[0], true, []string{"TestKill/v1", "TestStatsV1AsUpstream", "TestParentEffective"}},
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
