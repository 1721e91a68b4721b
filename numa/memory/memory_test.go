package memory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa/cpuset"
)

// TestProbe needs no machine with nodes: every one has node 0.
func TestProbe(t *testing.T) {
	if err := Probe(Bind, cpuset.Of(0)); errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skipf("needs a kernel with CONFIG_NUMA that lets us: %v", err)
	}
	for _, c := range []struct {
		mode  Mode
		nodes cpuset.Set
		err   error
	}{
		{Preferred, cpuset.Of(0), nil},
		{Bind, cpuset.Of(0), nil},
		{Interleave, cpuset.Of(0), nil},
		{Bind, cpuset.Of(0, maxNodes-2), nil}, // there is one of them
		{Bind, cpuset.Of(maxNodes - 2), unix.EINVAL},
		{Bind, cpuset.Of(maxNodes), unix.EINVAL},
		{Bind, cpuset.Set{}, unix.EINVAL},
		{99, cpuset.Of(0), unix.EINVAL},
	} {
		if err := Probe(c.mode, c.nodes); !errors.Is(err, c.err) {
			t.Errorf("%s on nodes %q: %v, want %v", c.mode, c.nodes, err, c.err)
		}
	}
}

// patience bounds a wait for what must happen; a test that passes never spends
// it.
const patience = 30 * time.Second

// TestProbeLeavesNoPolicy holds that no thread that goroutines still run on has
// the policy of a probe. The threads of the probes take a moment to end; the
// main thread, if one of them had it, stays and runs nothing any more.
func TestProbeLeavesNoPolicy(t *testing.T) {
	var probes sync.WaitGroup
	for range 50 {
		probes.Go(func() { _ = Probe(Bind, cpuset.Of(0)) })
	}
	probes.Wait()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		bound := boundThreads(t)
		if len(bound) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("threads %q are still bound", bound)
		}
	}
}

func boundThreads(t *testing.T) (bound []string) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		maps, err := os.ReadFile("/proc/self/task/" + thread.Name() + "/numa_maps")
		if errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) {
			continue // it has ended, or the kernel has no NUMA
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(maps), " bind:") && thread.Name() != strconv.Itoa(os.Getpid()) {
			bound = append(bound, thread.Name())
		}
	}
	return bound
}

// node is a meminfo file with sizes in MiB.
func node(id int, total, free, active, inactive uint64) string {
	var text strings.Builder
	for _, line := range []struct {
		key       string
		megabytes uint64
	}{
		{"MemTotal", total}, {"MemFree", free}, {"MemUsed", total - free}, {"SwapCached", 0},
		{"Active(anon)", total / 2}, {"Active(file)", active}, {"Inactive(file)", inactive},
	} {
		fmt.Fprintf(&text, "Node %d %-15s %8d kB\n", id, line.key+":", line.megabytes<<10)
	}
	return text.String() + fmt.Sprintf("Node %d HugePages_Total:     0\n", id)
}

func machine(texts ...string) fstest.MapFS {
	sys := fstest.MapFS{}
	for id, text := range texts {
		sys[fmt.Sprintf("devices/system/node/node%d/meminfo", id)] = &fstest.MapFile{Data: []byte(text)}
	}
	return sys
}

func TestIsShort(t *testing.T) {
	const large = 96 << 10 // MiB
	for _, c := range []struct {
		name  string
		sys   fstest.MapFS
		nodes cpuset.Set
		short bool
		err   string // part of it
	}{
		{"free", machine(node(0, 1600, 100, 0, 0)), cpuset.Of(0), false, ""},
		{"full", machine(node(0, 1600, 99, 0, 0)), cpuset.Of(0), true, ""},
		{"page cache", machine(node(0, 1600, 10, 45, 45)), cpuset.Of(0), false, ""},
		{"large, free", machine(node(0, large, 1024, 0, 0)), cpuset.Of(0), false, ""},
		{"large, full", machine(node(0, large, 1023, 0, 0)), cpuset.Of(0), true, ""},
		{"the other is full", machine(node(0, 1600, 800, 0, 0), node(1, 1600, 0, 0, 0)), cpuset.Of(0), false, ""},
		{"one of two is full", machine(node(0, 1600, 800, 0, 0), node(1, 1600, 0, 0, 0)), cpuset.Of(0, 1), false, ""},
		{"both are full", machine(node(0, 1600, 99, 0, 0), node(1, 1600, 99, 0, 0)), cpuset.Of(0, 1), true, ""},
		{"no node", machine(node(0, 1600, 800, 0, 0)), cpuset.Of(1), false, "node 1"},
		{"empty", machine(""), cpuset.Of(0), false, "no MemTotal"},
		{"malformed", machine("Node 0 MemTotal: much kB\n"), cpuset.Of(0), false, "much"},
	} {
		short, err := isShort(c.sys, c.nodes)
		if short != c.short || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %t, %v; want %t, %q", c.name, short, err, c.short, c.err)
		}
	}
}

func TestAwaitShortage(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- AwaitShortage(ctx, machine(node(0, 1600, 800, 0, 0)), cpuset.Of(0)) }()
	cancel(nil)
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := AwaitShortage(t.Context(), machine(node(0, 1600, 1, 0, 0)), cpuset.Of(0)); err != nil {
		t.Errorf("short: %v", err)
	}
	// The machine's own, whatever it is.
	if _, err := os.Stat("/sys/devices/system/node/node0/meminfo"); err == nil {
		if u, err := readUsage(os.DirFS("/sys"), 0); err != nil || u.free+u.cache > u.total || u.cache == 0 {
			t.Errorf("node 0: %+v, %v", u, err)
		}
	}
}

func FuzzUsage(f *testing.F) {
	f.Add(node(0, 16, 8, 4, 2))
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = readUsage(machine(text), 0)
	})
}
