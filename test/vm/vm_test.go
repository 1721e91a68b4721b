package vm_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"containerd-shim-numa-v1/test/vm"
)

// TestCommand holds what Run promises of a guest's command.
func TestCommand(t *testing.T) {
	dir := t.TempDir()
	given, out := filepath.Join(dir, "given"), filepath.Join(dir, "out")
	if err := os.WriteFile(given, []byte("given\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const script = `
		cat /a/b/given; pwd; echo $NAME >&2; stat -c %a /a/b/given
		printf 'raw \r\n\001\000\377'
		mkdir /out/below; echo made >/out/below/file; ln -s file /out/below/link
		sleep 1000 & (sleep 1000 &)
		exit 42`
	var stdout bytes.Buffer
	r := boot(t, vm.Boot{
		Kernel:  newest(),
		Files:   map[string]string{"/a/b/given": given},
		Env:     []string{"NAME=value"},
		Dir:     "/a/b",
		Command: []string{"/bin/sh", "-c", script},
		Stdout:  &stdout,
		Out:     out,
	})
	if r.ExitCode != 42 {
		t.Errorf("exit status %d, want 42", r.ExitCode)
	}
	if want := "given\n/a/b\nvalue\n600\nraw \r\n\x01\x00\xff"; string(r.Output) != want {
		t.Errorf("output %q, want %q", r.Output, want)
	}
	if !*outputFlag && !bytes.Equal(stdout.Bytes(), r.Output) {
		t.Errorf("streamed %q, returned %q", stdout.Bytes(), r.Output)
	}
	if b, err := os.ReadFile(filepath.Join(out, "below/link")); string(b) != "made\n" {
		t.Errorf("copied back %q, error %v", b, err)
	}
}

// TestNoGuest holds that a guest without an exit status is an error, however
// it came to that.
func TestNoGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest: not with -short")
	}
	for _, test := range []struct {
		name string
		boot vm.Boot
		want string // part of the error
	}{
		{"no kernel", vm.Boot{Kernel: "2.4", Command: []string{"/bin/true"}}, "no kernel 2.4 in"},
		{"no command", vm.Boot{Kernel: newest()}, "no command"},
		{"command missing", vm.Boot{Kernel: newest(), Command: []string{"/missing"}}, `start ["/missing"]`},
		{"timeout", vm.Boot{Kernel: newest(), Timeout: time.Second, Command: []string{"/bin/sleep", "1000"}}, "did not end in time"},
		{"panic", vm.Boot{Kernel: newest(), Command: []string{"/bin/sh", "-c", "echo c >/proc/sysrq-trigger"}}, "died while its command ran"},
		{"memory too small", vm.Boot{Kernel: newest(), Memory: 16, Command: []string{"/bin/true"}}, "died before its command started"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := test.boot.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("result %+v, error %v, want one with %q", r, err, test.want)
			}
		})
	}
}

func TestSignal(t *testing.T) {
	r := boot(t, vm.Boot{Kernel: newest(), Command: []string{"/bin/sh", "-c", "kill -9 $$"}})
	if r.ExitCode != 128+9 {
		t.Errorf("exit status %d, want %d", r.ExitCode, 128+9)
	}
}

// TestTopology holds that the guest's kernel sees the machine that was asked
// for, with SMT siblings and a node without CPUs.
func TestTopology(t *testing.T) {
	const script = `
		cd /sys/devices/system
		for f in node/online node/has_cpu node/has_normal_memory node/node*/cpulist node/node*/distance \
			cpu/smt/active cpu/cpu5/topology/thread_siblings_list cpu/cpu5/topology/physical_package_id \
			cpu/cpu5/cache/index3/shared_cpu_list; do echo "$f: $(cat $f)"; done`
	const want = `node/online: 0-2
node/has_cpu: 0-1
node/has_normal_memory: 0-2
node/node0/cpulist: 0-3
node/node1/cpulist: 4-7
node/node2/cpulist: 
node/node0/distance: 10 21 17
node/node1/distance: 21 10 28
node/node2/distance: 17 28 10
cpu/smt/active: 1
cpu/cpu5/topology/thread_siblings_list: 4-5
cpu/cpu5/topology/physical_package_id: 1
cpu/cpu5/cache/index3/shared_cpu_list: 4-7
`
	for _, series := range kernels() {
		t.Run(series, func(t *testing.T) {
			r := boot(t, vm.Boot{
				Kernel: series,
				Topology: vm.Topology{
					Sockets: 2, Cores: 2, Threads: 2,
					Nodes:     []vm.Node{{CPUs: "0-3", Memory: 768}, {CPUs: "4-7", Memory: 768}, {Memory: 256}},
					Distances: [][]int{{10, 21, 17}, {21, 10, 28}, {17, 28, 10}},
				},
				Command: []string{"/bin/sh", "-c", script},
			})
			if got := string(r.Output); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}
