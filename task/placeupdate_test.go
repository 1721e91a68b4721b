package task

import (
	"context"
	"fmt"
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task/placement"
)

func quota(n int64) *specs.LinuxCPU {
	period := uint64(100000)
	n *= 100000
	return &specs.LinuxCPU{Quota: &n, Period: &period}
}

// lastUpdate is what the engine was asked for last.
func lastUpdate(t *testing.T, i *fakeInstance) *specs.LinuxResources {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.updates) == 0 {
		t.Fatal("no update")
	}
	return i.updates[len(i.updates)-1]
}

// TestUpdateNarrows changes what a shared container asks for and is granted.
func TestUpdateNarrows(t *testing.T) {
	m := newMachine(t)
	r := m.shim(placement.Settings{})
	i := r.createWith("c", specWith(cpus(4)))
	home := cpusOf(i)

	must(t, r.update("c", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-95"}}))
	if got := cpusOf(i); got != home {
		t.Errorf("all CPUs granted: on %s, was on %s", got, home)
	}
	must(t, r.update("c", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "20-27"}}))
	want := map[string]string{r5Node0: "20-23", r5Node1: "24-27"}[home]
	if got := cpusOf(i); got != want {
		t.Errorf("granted 20-27: on %s, want %s", got, want)
	}
	// What is not wide enough on its node is left as it was given.
	must(t, r.update("c", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "21-24"}}))
	if got := cpusOf(i); got != "21-24" {
		t.Errorf("granted 21-24, as wide as its limit: on %s", got)
	}
	// A limit that leaves room narrows what had been granted before.
	must(t, r.update("c", &specs.LinuxResources{CPU: quota(1)}))
	if got := lastUpdate(t, i).CPU.Cpus; got != "21-23" && got != "24" {
		t.Errorf("limit 1, granted 21-24: on %q", got)
	}
	if e := m.entries(); len(e) != 1 || e[0].Milli != 1000 || e[0].Width != 1 || e[0].Granted.String() != "21-24" {
		t.Errorf("ledger %+v", e)
	}
	r.end("c")
	m.wantEmpty()
}

// TestUpdateOfOtherThings leaves CPUs alone that have not changed.
func TestUpdateOfOtherThings(t *testing.T) {
	m := newMachine(t)
	r := m.shim(placement.Settings{})
	i := r.createWith("c", specWith(cpus(4)))
	limit := int64(1 << 20)
	for name, res := range map[string]*specs.LinuxResources{
		"pids":   {Pids: &specs.LinuxPids{Limit: &limit}},
		"memory": {Memory: &specs.LinuxMemory{Limit: &limit}},
		"quota":  {CPU: quota(3)},
	} {
		must(t, r.update("c", res))
		if c := lastUpdate(t, i).CPU; c != nil && c.Cpus != "" {
			t.Errorf("%s: CPUs %s", name, c.Cpus)
		}
	}
	if e := m.entries(); len(e) != 1 || e[0].Milli != 3000 || e[0].Bytes != limit {
		t.Errorf("ledger %+v", e)
	}
	r.end("c")
	m.wantEmpty()
}

// TestUpdateResizesDedicated keeps the node, and what it has, where it can.
func TestUpdateResizesDedicated(t *testing.T) {
	m := newMachine(t)
	r := m.shim(dedicated)
	var before []string
	for n := range 4 { // what they leave is where one would begin
		before = append(before, fmt.Sprint("b", n))
		r.createWith(before[n], specWith(cpus(4)))
	}
	i := r.createWith("c", specWith(cpus(4)))
	four := set(t, cpusOf(i))
	for _, id := range before {
		r.end(id)
	}
	must(t, r.update("c", &specs.LinuxResources{CPU: quota(8)}))
	eight := set(t, cpusOf(i))
	if eight.Len() != 8 || !four.IsSubset(eight) {
		t.Errorf("8 CPUs %s, 4 were %s", eight, four)
	}
	must(t, r.update("c", &specs.LinuxResources{CPU: quota(2)}))
	if two := set(t, cpusOf(i)); two.Len() != 2 || !two.IsSubset(eight) {
		t.Errorf("2 CPUs %s, 8 were %s", two, eight)
	}
	if e := m.entries(); len(e) != 1 || !e[0].Owned.Equal(set(t, cpusOf(i))) {
		t.Errorf("ledger %+v", e)
	}
	r.end("c")
	m.wantEmpty()
}

// TestUpdateNeverRefused has a container that insists on one node grow beyond
// it.
func TestUpdateNeverRefused(t *testing.T) {
	m := newMachine(t)
	r := m.shim(placement.Settings{CPUPolicy: "dedicated", Policy: "single-numa-node"})
	i := r.createWith("c", specWith(cpus(4)))
	must(t, r.update("c", &specs.LinuxResources{CPU: quota(60)}))
	if got := set(t, cpusOf(i)); got.Len() < 60 {
		t.Errorf("60 CPUs: %s", got)
	}
	r.end("c")
	m.wantEmpty()
}

// TestUpdateFails leaves the ledger as it was.
func TestUpdateFails(t *testing.T) {
	m := newMachine(t)
	r := m.shim(dedicated)
	i := r.createWith("c", specWith(cpus(4)))
	before := m.entries()
	r.engine.on("update", failing)
	if err := r.update("c", &specs.LinuxResources{CPU: quota(8)}); err == nil {
		t.Error("no error")
	}
	if after := m.entries(); len(after) != 1 || !after[0].Owned.Equal(before[0].Owned) || after[0].Width != 4 {
		t.Errorf("ledger %+v, was %+v", after, before)
	}
	r.engine.on("update", nil)
	must(t, r.update("c", &specs.LinuxResources{CPU: quota(5)}))
	if got := set(t, cpusOf(i)); got.Len() != 5 {
		t.Errorf("5 CPUs after a failure: %s", got)
	}
	r.end("c")
	m.wantEmpty()
}

// TestUpdateWithoutTheLedger stays within what is the container's.
func TestUpdateWithoutTheLedger(t *testing.T) {
	m := newMachine(t)
	r := m.shim(dedicated)
	i := r.createWith("c", specWith(cpus(4)))
	four := set(t, cpusOf(i))
	newer(t, m.ledger)
	must(t, r.update("c", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-95"}}))
	if got := set(t, cpusOf(i)); !got.Equal(four) {
		t.Errorf("CPUs %s, are %s", got, four)
	}
	r.end("c")
}

// TestExclusiveByKubelet leaves CPUs alone that kubelet gave, and keeps them
// from others.
func TestExclusiveByKubelet(t *testing.T) {
	const cri = "io.kubernetes.cri.container-type=container"
	m := newMachine(t)
	r := m.shim(placement.Settings{})
	i := r.createWith("c", specWith(`"quota":-1,"cpus":"2-3,50-51"`, cri))
	if got := cpusOf(i); got != "2-3,50-51" {
		t.Errorf("CPUs %q", got)
	}
	d := m.shim(dedicated)
	if got := set(t, cpusOf(d.createWith("d", specWith(cpus(4)+`,"cpus":"2-5,50-53"`)))); got.Intersects(set(t, "2-3,50-51")) || got.Len() != 4 {
		t.Errorf("dedicated CPUs %s", got)
	}
	// kubelet says it once more, and then something else.
	must(t, r.update("c", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "2-3,50-51"}}))
	must(t, r.update("c", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "10-11"}}))
	if got := cpusOf(i); got != "10-11" {
		t.Errorf("CPUs %q", got)
	}
	d.end("d")
	r.end("c")
	m.wantEmpty()
}

// TestUpdateKeepsWhatIsInUse has another container come while CPUs are taken
// from one: they are its until it has let go of them.
func TestUpdateKeepsWhatIsInUse(t *testing.T) {
	for name, outcome := range map[string]error{"resized": nil, "failed": errFake} {
		m := newMachine(t)
		r, other := m.shim(dedicated), m.shim(dedicated)
		r.createWith("c", specWith(cpus(8)+`,"cpus":"0-7"`))
		r.engine.on("update", func(context.Context) error {
			other.createWith("d", specWith(cpus(4)+`,"cpus":"0-7"`))
			return outcome
		})
		if err := r.update("c", &specs.LinuxResources{CPU: quota(2)}); (err != nil) != (outcome != nil) {
			t.Errorf("%s: %v", name, err)
		}
		e := m.entries()
		if len(e) != 2 || e[0].Owned.Intersects(e[1].Owned) {
			t.Errorf("%s: ledger %+v", name, e)
		}
		want := map[error]int{nil: 2, errFake: 8}[outcome]
		if got := e[0].Owned.Len() + e[1].Owned.Len(); got != want {
			t.Errorf("%s: %d CPUs are owned, want %d", name, got, want)
		}
		other.end("d")
		r.end("c")
		m.wantEmpty()
	}
}

// TestNarrowedWithoutTheLedger has a container be granted less while the ledger
// is locked: it is not given more when others' CPUs change.
func TestNarrowedWithoutTheLedger(t *testing.T) {
	for given, want := range map[string]string{"0-3": "0-3", "0-95": "0-5", "24-27": "24-27"} {
		m := newMachine(t)
		r := m.shim(placement.Settings{Annotations: []string{"cpu-policy"}})
		i := r.createWith("c", specWith(cpus(1)+`,"cpus":"0-7"`))
		f, err := os.Open(m.ledger)
		must(t, err)
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		must(t, r.update("c", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: given}}))
		must(t, f.Close())
		r.createWith("d", specWith(cpus(2)+`,"cpus":"6-7"`, "numa.containerd.io/cpu-policy=dedicated"))
		r.reapplyAll(t.Context())
		if got := cpusOf(i); got != want {
			t.Errorf("granted %s: on CPUs %s, want %s", given, got, want)
		}
		r.end("d")
		r.end("c")
		m.wantEmpty()
	}
}
