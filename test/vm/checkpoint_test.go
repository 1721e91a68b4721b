package vm_test

import (
	"testing"

	"containerd-shim-numa-v1/test/vm"
)

// criuModules are what criu asks the kernel about sockets and network devices
// with, and of which some of its checks have to be there.
var criuModules = []string{
	"inet_diag", "tcp_diag", "udp_diag", "raw_diag", "unix_diag", "netlink_diag", "af_packet_diag", "tun", "nf_tables",
	"nf_conntrack", "nf_conntrack_netlink", "dummy", "ipv6",
}

// TestCheckpoint runs the end-to-end tests of checkpoint and restore, with
// cgroup v2, on the oldest kernel, and on the newest on which criu can dump
// TCP connections: criu keeps up with kernels less than they with each other.
func TestCheckpoint(t *testing.T) {
	b := endToEnd(t)
	const inGuest = "/opt/criu"
	if err := vm.FetchCriu(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Files[inGuest] = vm.CriuDir()
	b.Modules = criuModules
	b.Programs = append(b.Programs, "/bin/tar", "/sbin/ip") // busybox's are not enough for criu
	b.Command = append(b.Command, "-test.run=^(TestCheckpoint|TestRestore|TestOpenConnection)", "-criu="+inGuest, "-layers=3")
	for _, series := range []string{kernels()[0], "6.12"} {
		t.Run(series, func(t *testing.T) {
			b := b
			b.Kernel = series
			runTests(t, b, "TestCheckpointLeaveRunning", "TestRestore", "TestOpenConnection")
		})
	}
}
