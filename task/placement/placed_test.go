package placement

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/cgroups"
	"containerd-shim-numa-v1/numa/ledger"
)

// small is a sysfs of two nodes with two CPUs each, in files that a test may
// change, and the settings to read it.
func small(t *testing.T) Settings {
	t.Helper()
	dir := t.TempDir()
	s := Settings{Sysfs: filepath.Join(dir, "sys"), Ledger: filepath.Join(dir, "ledger")}
	for name, text := range map[string]string{
		"cpu/online": "0-3", "node/online": "0-1",
		"cpu/cpu0/topology/core_cpus_list": "0", "cpu/cpu1/topology/core_cpus_list": "1",
		"cpu/cpu2/topology/core_cpus_list": "2", "cpu/cpu3/topology/core_cpus_list": "3",
		"node/node0/cpulist": "0-1", "node/node0/distance": "10 20",
		"node/node1/cpulist": "2-3", "node/node1/distance": "20 10",
	} {
		s.write(t, name, text)
	}
	s.memory(t, "0", "900000")
	s.memory(t, "1", "900000")
	return s
}

func (s Settings) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(s.Sysfs, "devices/system", name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path+".new", []byte(text+"\n"), 0o600))
	must(t, os.Rename(path+".new", path))
}

// memory sets the free memory of a node with about a gigabyte, in kB.
func (s Settings) memory(t *testing.T, node, free string) {
	t.Helper()
	s.write(t, "node/node"+node+"/meminfo", "Node "+node+" MemTotal: 1000000 kB\nNode "+node+" MemFree: "+free+" kB")
}

// place places a container with a spec in JSON, and releases it in the end.
func place(t *testing.T, s Settings, text string) (*Placed, *specs.Spec) {
	t.Helper()
	spec := parse(t, text)
	p, err := New(s, nil).Place(t.Context(), Container{ID: "c", Bundle: t.TempDir(), Spec: spec, Settings: s})
	must(t, err)
	if p == nil {
		t.Fatal("unplaced")
	}
	t.Cleanup(func() { p.Release(context.Background()) })
	return p, spec
}

// noted is what a bundle tells.
func noted(t *testing.T, p *Placed) (r record) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.bundle, ledger.RecordFile))
	must(t, err)
	must(t, json.Unmarshal(data, &r))
	return r
}

const onNode0 = `{"linux":{"resources":{"cpu":{"cpus":"0-1","shares":100}}}}`

// TestMemoryPolicies needs no second node of the machine's: the containers are
// on the first.
func TestMemoryPolicies(t *testing.T) {
	for policy, want := range map[string]struct {
		mode specs.MemoryPolicyModeType
		mems string
	}{
		"local": {}, "bind": {mems: "0"}, "preferred": {mode: specs.MpolPreferred}, "interleave": {mode: specs.MpolInterleave},
	} {
		s := small(t)
		s.MemoryPolicy = policy
		p, spec := place(t, s, onNode0)
		if got := spec.Linux.Resources.CPU.Mems; got != want.mems || noted(t, p).Mems.String() != want.mems {
			t.Errorf("%s: mems %q, noted %q; want %q", policy, got, noted(t, p).Mems, want.mems)
		}
		m := spec.Linux.MemoryPolicy
		switch {
		case m == nil && want.mode != "" && len(p.missed()) == 0: // the kernel refuses it
			t.Errorf("%s: no memory policy, and nothing missed", policy)
		case m != nil && (m.Mode != want.mode || m.Nodes != "0"):
			t.Errorf("%s: memory policy %+v", policy, m)
		}
	}
	// What the kernel would refuse does not end up in the spec.
	s := small(t)
	s.MemoryPolicy = "preferred"
	if nodes, err := filepath.Glob("/sys/devices/system/node/node1"); err == nil && len(nodes) == 0 {
		p, spec := place(t, s, `{"linux":{"resources":{"cpu":{"cpus":"2-3"}}}}`)
		if spec.Linux.MemoryPolicy != nil || len(p.missed()) == 0 {
			t.Errorf("preferred on a node that there is not: %+v, missed %q", spec.Linux.MemoryPolicy, p.missed())
		}
	}
}

// cgroup is one with effective CPUs.
func cgroup(t *testing.T, cpus string) *cgroups.Cgroup {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "cpuset.effective_cpus"), []byte(cpus+"\n"), 0o600))
	cg, err := cgroups.LoadPaths(map[string]string{"cpuset": dir})
	must(t, err)
	return cg
}

// TestKernelDisagrees has the kernel let a container run elsewhere.
func TestKernelDisagrees(t *testing.T) {
	s := small(t)
	s.CPUPolicy = "dedicated"
	apply := func(context.Context, *specs.LinuxResources) error { return nil }
	p, _ := place(t, s, onNode0)
	p.Confirm(t.Context(), os.Getpid(), cgroup(t, p.cpus.String()), apply)
	if r := noted(t, p); r.Fault != "" || r.Claim.Owned.IsEmpty() || r.Claim.Init.Pid != os.Getpid() {
		t.Errorf("as it should be: %+v", r)
	}
	p.Confirm(t.Context(), os.Getpid(), cgroup(t, "0-3"), apply)
	if r := noted(t, p); r.Fault == "" || !r.Claim.Owned.IsEmpty() || !r.Claim.Nodes.IsEmpty() {
		t.Errorf("on all CPUs: %+v", r)
	}
	entries, err := p.host.ledger.Read()
	if err != nil || len(entries) != 1 || !entries[0].Owned.IsEmpty() {
		t.Errorf("ledger %+v, %v", entries, err)
	}
	// From then on nobody meddles with its CPUs.
	var got *specs.LinuxResources
	res := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-3"}}
	must(t, p.Update(t.Context(), res, func(_ context.Context, r *specs.LinuxResources) error { got = r; return nil }))
	if got != res {
		t.Errorf("update with %+v", got.CPU)
	}
}

// TestWidensMemory has the node run short of memory to which a container is
// bound.
func TestWidensMemory(t *testing.T) {
	s := small(t)
	s.MemoryPolicy, s.WidenMemory = "bind", true
	p, _ := place(t, s, onNode0)
	widened := make(chan string, 1)
	p.Confirm(t.Context(), os.Getpid(), nil, func(_ context.Context, r *specs.LinuxResources) error {
		widened <- r.CPU.Mems
		return nil
	})
	s.memory(t, "0", "1000")
	if got := <-widened; got != "0-1" {
		t.Errorf("widened to %q", got)
	}
	must(t, p.take(t.Context())) // it is done
	p.give()
	if got := noted(t, p).Mems.String(); got != "0-1" {
		t.Errorf("noted nodes %q", got)
	}
	p.Release(t.Context())
	if _, err := ledger.ReadRecord(p.bundle); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("record: %v", err)
	}

	// One that is never short ends with its container.
	s.memory(t, "0", "900000")
	p, _ = place(t, s, onNode0)
	p.Confirm(t.Context(), os.Getpid(), nil, func(context.Context, *specs.LinuxResources) error {
		t.Error("widened")
		return nil
	})
	p.Release(t.Context())
}

// TestNear is for the shim's own work.
func TestNear(t *testing.T) {
	s := small(t)
	p, _ := place(t, s, onNode0)
	if near := p.Near(); !near.IsEmpty() {
		t.Errorf("near %s without the setting", near)
	}
	s.PinCreate = true
	if p, _ = place(t, s, onNode0); p.Near().String() != "0-1" {
		t.Errorf("near %s", p.Near())
	}
	if near := (*Placed)(nil).Near(); !near.IsEmpty() {
		t.Errorf("near %s without a placement", near)
	}
}

// TestKeptAsGranted leaves a container alone that may use CPUs on which nobody
// is put, those of isolcpus.
func TestKeptAsGranted(t *testing.T) {
	s := small(t)
	s.write(t, "cpu/isolated", "1")
	p, spec := place(t, s, `{"annotations":{"numa.containerd.io/policy":"none"},"process":{"env":["A=b"]}}`)
	if got := noted(t, p).CPUs.String(); got != "0-3" || spec.Linux.Resources != nil || len(spec.Process.Env) != 1 {
		t.Errorf("noted CPUs %s, resources %+v, environment %q", got, spec.Linux.Resources, spec.Process.Env)
	}
	if p, _ = place(t, s, onNode0); p.cpus.String() != "0" {
		t.Errorf("placed on CPUs %s", p.cpus)
	}
}

func TestReleaseOfNothing(t *testing.T) {
	must(t, Release(t.Context(), t.TempDir()))
	bundle := t.TempDir()
	must(t, os.WriteFile(filepath.Join(bundle, ledger.RecordFile), []byte("{"), 0o600))
	if err := Release(t.Context(), bundle); err == nil {
		t.Error("no error for half a record")
	}
}

// TestWatchesWhereItIs has a bound container move to a node that runs short.
func TestWatchesWhereItIs(t *testing.T) {
	s := small(t)
	s.MemoryPolicy, s.WidenMemory = "bind", true
	p, _ := place(t, s, onNode0)
	mems := make(chan string, 2)
	apply := func(_ context.Context, r *specs.LinuxResources) error {
		mems <- r.CPU.Mems
		return nil
	}
	p.Confirm(t.Context(), os.Getpid(), nil, apply)
	must(t, p.Update(t.Context(), &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "2-3"}}, apply))
	if got := <-mems; got != "1" {
		t.Fatalf("moved to memory node %q", got)
	}
	s.memory(t, "1", "1000")
	select {
	case got := <-mems:
		if got != "0-1" {
			t.Errorf("widened to %q", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("not widened")
	}
}

// TestSandboxIsNeverRefused, since it runs nothing.
func TestSandboxIsNeverRefused(t *testing.T) {
	s := small(t)
	s.Policy, s.Ledger = "single-numa-node", "/nonexistent/ledger"
	spec := parse(t, `{"annotations":{"io.kubernetes.cri.container-type":"sandbox"}}`)
	p, err := New(s, nil).Place(t.Context(), Container{ID: "c", Bundle: t.TempDir(), Spec: spec, Settings: s})
	if p != nil || err != nil {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestReapplyIsOfNow has a container come while another change of one that
// shares its CPUs is under way.
func TestReapplyIsOfNow(t *testing.T) {
	s := small(t)
	p, _ := place(t, s, onNode0)
	must(t, p.take(t.Context()))
	begun, applied := make(chan struct{}), make(chan string, 1)
	go func() {
		defer close(applied)
		close(begun)
		p.Reapply(context.Background(), func(_ context.Context, r *specs.LinuxResources) error {
			applied <- r.CPU.Cpus
			return nil
		})
	}()
	<-begun
	s.CPUPolicy = "dedicated"
	other, _ := place(t, s, `{"linux":{"resources":{"cpu":{"cpus":"0-1"}}}}`)
	want := set(t, "0-1").Difference(other.claim.Owned).String()
	p.give()
	if got := <-applied; got != want {
		t.Errorf("moved to CPUs %q, want %s", got, want)
	}
}

// TestStaysWithItsMemory changes the CPU limit of a container that uses the
// memory and the huge pages for which there was room.
func TestStaysWithItsMemory(t *testing.T) {
	const spec = `{"linux":{"resources":{"cpu":{"shares":100},"memory":{"limit":629145600},"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}}}`
	pages := func(s Settings, node, free string) {
		s.write(t, "node/node"+node+"/hugepages/hugepages-2048kB/free_hugepages", free)
	}
	s := small(t)
	s.MemoryPolicy = "bind"
	pages(s, "0", "2")
	pages(s, "1", "2")
	p, _ := place(t, s, spec)
	home := p.claim.Nodes.String()
	s.memory(t, home, "200000")
	pages(s, home, "0")
	shares := uint64(200)
	apply := func(context.Context, *specs.LinuxResources) error { return nil }
	must(t, p.Update(t.Context(), &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares}}, apply))
	if p.claim.Nodes.String() != home || p.mems.String() != home || p.claim.Milli != 196 {
		t.Errorf("on node %s with memory of %q and %d mCPU, was on node %s", p.claim.Nodes, p.mems, p.claim.Milli, home)
	}
}

// TestBoundlessRequests has a spec ask for more than can be counted: no memory
// in particular.
func TestBoundlessRequests(t *testing.T) {
	a, err := ask(parse(t, `{"linux":{"resources":{
		"cpu":{"shares":18446744073709551615,"quota":9223372036854775807,"period":1},
		"hugepageLimits":[{"pageSize":"2MB","limit":9223372036854771712}],
		"unified":{"memory.min":"9223372036854775807"}}}}`), Settings{}, r5(t))
	must(t, err)
	if a.Bytes != 0 || len(a.Hugepages) > 0 || a.Milli != mostCPUs*milliPerCPU || a.Width != mostCPUs {
		t.Errorf("%+v", a)
	}
}

// TestBoundWithoutTheLedger has a bound container be granted more memory nodes
// while the ledger is locked.
func TestBoundWithoutTheLedger(t *testing.T) {
	s := small(t)
	s.MemoryPolicy = "bind"
	p, _ := place(t, s, onNode0)
	f, err := os.Open(s.Ledger)
	must(t, err)
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	var got *specs.LinuxCPU
	apply := func(_ context.Context, r *specs.LinuxResources) error { got = r.CPU; return nil }
	must(t, p.Update(t.Context(), &specs.LinuxResources{CPU: &specs.LinuxCPU{Mems: "0-1"}}, apply))
	if got.Mems != "0" || got.Cpus != "" {
		t.Errorf("applied %+v", got)
	}
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
}
