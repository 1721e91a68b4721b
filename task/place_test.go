package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/numa/ledger"
	"containerd-shim-numa-v1/numa/machines"
	"containerd-shim-numa-v1/task/placement"
)

// The CPUs of the nodes of r5.metal, on which these tests believe to be.
const (
	r5Node0 = "0-23,48-71"
	r5Node1 = "24-47,72-95"
)

// machine is a machine's sysfs and its ledger, on which several shims can be.
type machine struct {
	t      testing.TB
	sysfs  string
	ledger string
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	sysfs, err := expanded()
	must(t, err)
	return &machine{t: t, sysfs: sysfs, ledger: filepath.Join(t.TempDir(), "ledger")}
}

// expanded is the directory with the machine's sysfs, some thousand files, for
// all tests. TestMain removes it.
var expanded = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "numa-sysfs-")
	if err != nil {
		return "", err
	}
	expandedDir = dir
	return dir, machines.Expand("r5.metal", dir)
})

var expandedDir string

// shim is a service on the machine. It ends before the test's files go.
func (m *machine) shim(s placement.Settings) *rig {
	m.t.Helper()
	s.Sysfs, s.Ledger = m.sysfs, m.ledger
	r := newRigWith(m.t, Config{Node: Settings{Placement: s}, Wake: make(chan os.Signal, 1)})
	m.t.Cleanup(func() { must(m.t, r.Close(context.Background())) })
	return r
}

// entries are those of the ledger.
func (m *machine) entries() []ledger.Entry {
	m.t.Helper()
	topology, err := numa.Discover(os.DirFS(m.sysfs))
	must(m.t, err)
	l, err := ledger.Open(ledger.Config{Dir: m.ledger, Topology: topology})
	must(m.t, err)
	entries, err := l.Read()
	must(m.t, err)
	return entries
}

// wantEmpty is the ledger after all containers have gone.
func (m *machine) wantEmpty() {
	m.t.Helper()
	if left := m.entries(); len(left) > 0 {
		m.t.Errorf("left in the ledger: %+v", left)
	}
}

// specWith is the spec of a container with CPU limits as JSON, and annotations
// as "key=value".
func specWith(cpu string, annotations ...string) string {
	pairs := map[string]string{}
	for _, a := range annotations {
		key, value, _ := strings.Cut(a, "=")
		pairs[key] = value
	}
	text, _ := json.Marshal(pairs)
	return fmt.Sprintf(`{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"args":["x"],"cwd":"/","env":["A=b"]},"annotations":%s,
		"linux":{"namespaces":[{"type":"pid"},{"type":"mount"}],"resources":{"cpu":{%s}}}}`, text, cpu)
}

func cpus(n int) string { return fmt.Sprintf(`"quota":%d,"period":100000`, n*100000) }

// set reads a list of CPUs.
func set(t testing.TB, list string) cpuset.Set {
	t.Helper()
	s, err := cpuset.Parse(list)
	must(t, err)
	return s
}

// cpusOf are the CPUs that the engine was told last, "" for none.
func cpusOf(i *fakeInstance) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	for n := len(i.updates) - 1; n >= 0; n-- {
		if c := i.updates[n].CPU; c != nil && c.Cpus != "" {
			return c.Cpus
		}
	}
	if r := i.request.Spec.Linux.Resources; r != nil && r.CPU != nil {
		return r.CPU.Cpus
	}
	return ""
}

func (r *rig) end(id string) {
	r.t.Helper()
	r.delete(id, "")
}

var dedicated = placement.Settings{CPUPolicy: "dedicated"}

func TestPlacedOnANode(t *testing.T) {
	m := newMachine(t)
	r := m.shim(placement.Settings{})
	i := r.createWith("c", specWith(cpus(4)))
	got := cpusOf(i)
	if got != r5Node0 && got != r5Node1 {
		t.Errorf("placed on CPUs %q", got)
	}
	env := strings.Join(i.request.Spec.Process.Env, " ")
	if !strings.HasPrefix(env, "A=b CONTAINERD_NUMA_NODES=") || !strings.HasSuffix(env, " CONTAINERD_NUMA_CPUS="+got) {
		t.Errorf("environment %q", env)
	}
	entries := m.entries()
	if len(entries) != 1 || entries[0].Milli != 4000 || entries[0].Nodes.Len() != 1 {
		t.Errorf("ledger %+v", entries)
	}
	record, err := ledger.ReadRecord(i.request.Bundle)
	must(t, err)
	if c := record.Claim(); c.Milli != 4000 || !c.Nodes.Equal(entries[0].Nodes) {
		t.Errorf("record %+v", record)
	}
	info, err := os.Stat(filepath.Join(i.request.Bundle, ledger.RecordFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("record's file %v, %v", info, err)
	}
	r.end("c")
	m.wantEmpty()
	if _, err := ledger.ReadRecord(i.request.Bundle); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("record after the deletion: %v", err)
	}
}

func TestToldNothing(t *testing.T) {
	m := newMachine(t)
	off := false
	r := m.shim(placement.Settings{Env: &off})
	if env := r.createWith("c", specWith(cpus(4))).request.Spec.Process.Env; len(env) != 1 {
		t.Errorf("environment %q", env)
	}
	r.end("c")
	m.wantEmpty()
}

func TestPolicyNoneTouchesNothing(t *testing.T) {
	m := newMachine(t)
	r := m.shim(placement.Settings{Policy: placement.None})
	i := r.createWith("c", specWith(cpus(4)))
	if got := cpusOf(i); got != "" {
		t.Errorf("placed on CPUs %q", got)
	}
	if _, err := os.Stat(m.ledger); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a ledger: %v", err)
	}
	r.end("c")
}

// TestAnnotatedNone leaves the container alone but counts it.
func TestAnnotatedNone(t *testing.T) {
	m := newMachine(t)
	r := m.shim(placement.Settings{})
	i := r.createWith("c", specWith(cpus(4), "numa.containerd.io/policy=none"))
	if got := cpusOf(i); got != "" || len(i.request.Spec.Process.Env) != 1 {
		t.Errorf("placed on CPUs %q, told %q", got, i.request.Spec.Process.Env)
	}
	if e := m.entries(); len(e) != 1 || !e[0].Nodes.IsEmpty() || e[0].Milli != 4000 {
		t.Errorf("ledger %+v", e)
	}
	r.end("c")
	m.wantEmpty()
}

func TestWrongAnnotation(t *testing.T) {
	m := newMachine(t)
	r := m.shim(placement.Settings{})
	_, err := r.Create(t.Context(), &taskv3.CreateTaskRequest{ID: "c", Bundle: bundle(t, specWith("", "numa.containerd.io/policy=x"))})
	if !errdefs.IsInvalidArgument(err) || !r.Idle() {
		t.Errorf("%v", err)
	}
}

// TestDedicatedNeverOverlap has containers of many shims come and go at once.
func TestDedicatedNeverOverlap(t *testing.T) {
	m := newMachine(t)
	const shims, rounds, alive = 6, 12, 3
	var mu sync.Mutex
	owner := map[int]string{}
	var all sync.WaitGroup
	for n := range shims {
		r := m.shim(dedicated)
		all.Go(func() {
			for round := range rounds + alive {
				if round >= alive {
					id := fmt.Sprintf("s%d-%d", n, round-alive)
					mu.Lock()
					maps.DeleteFunc(owner, func(_ int, other string) bool { return other == id })
					mu.Unlock()
					r.end(id)
				}
				if round >= rounds {
					continue
				}
				id := fmt.Sprintf("s%d-%d", n, round)
				i := r.createWith(id, specWith(cpus(1+(n+round)%6)))
				got := set(t, cpusOf(i))
				if got.Len() != 1+(n+round)%6 {
					t.Errorf("%s: CPUs %s", id, got)
				}
				mu.Lock()
				for cpu := range got.All() {
					if other := owner[cpu]; other != "" {
						t.Errorf("CPU %d belongs to %s and to %s", cpu, other, id)
					}
					owner[cpu] = id
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	m.wantEmpty()
}

// TestSharedMakesRoom sees a shared container lose the CPUs that another one
// of its shim owns, and get them back.
func TestSharedMakesRoom(t *testing.T) {
	m := newMachine(t)
	r := m.shim(placement.Settings{Annotations: []string{"cpu-policy"}})
	i := r.createWith("shared", specWith(cpus(2)))
	home := set(t, cpusOf(i))
	var own cpuset.Set
	for n := range 2 { // one on each node, whichever comes first
		d := r.createWith(fmt.Sprint("own", n), specWith(cpus(30), "numa.containerd.io/cpu-policy=dedicated"))
		own = own.Union(set(t, cpusOf(d)))
	}
	eventually(t, "the shared container makes room", func() bool {
		return set(t, cpusOf(i)).Equal(home.Difference(own))
	})
	r.end("own0")
	r.end("own1")
	eventually(t, "the shared container has its CPUs again", func() bool { return set(t, cpusOf(i)).Equal(home) })
	r.end("shared")
	m.wantEmpty()
}

// TestWokenByAnother is the same with another shim, whose signal is Wake.
func TestWokenByAnother(t *testing.T) {
	m := newMachine(t)
	wake := make(chan os.Signal, 1)
	r := newRigWith(t, Config{Node: Settings{Placement: placement.Settings{Sysfs: m.sysfs, Ledger: m.ledger}}, Wake: wake})
	other := m.shim(dedicated)
	i := r.createWith("shared", specWith(cpus(2)))
	home := set(t, cpusOf(i))
	var own cpuset.Set
	for n := range 2 {
		own = own.Union(set(t, cpusOf(other.createWith(fmt.Sprint("own", n), specWith(cpus(30))))))
	}
	wake <- ledger.WakeSignal
	eventually(t, "the shared container makes room", func() bool {
		return set(t, cpusOf(i)).Equal(home.Difference(own))
	})
	must(t, r.Close(t.Context()))
	other.end("own0")
	other.end("own1")
	r.end("shared")
	m.wantEmpty()
}

// TestOthersCameMeanwhile has dedicated CPUs go while a container is created.
func TestOthersCameMeanwhile(t *testing.T) {
	m := newMachine(t)
	wake := make(chan os.Signal, 1)
	r := newRigWith(t, Config{Node: Settings{Placement: placement.Settings{Sysfs: m.sysfs, Ledger: m.ledger}}, Wake: wake})
	t.Cleanup(func() { must(t, r.Close(context.Background())) })
	other := m.shim(dedicated)
	g := newGate()
	r.engine.on("create", g.hook)
	created := make(chan error, 1)
	request := &taskv3.CreateTaskRequest{ID: "shared", Bundle: bundle(t, specWith(cpus(2)))}
	go func() {
		_, err := r.Create(t.Context(), request)
		created <- err
	}()
	<-g.entered
	var own cpuset.Set
	for n := range 2 {
		own = own.Union(set(t, cpusOf(other.createWith(fmt.Sprint("own", n), specWith(cpus(30))))))
	}
	// The wake comes too early: there is no container yet.
	wake <- ledger.WakeSignal
	eventually(t, "the shim is awake", func() bool { return r.reapplier.looks.Load() == 1 })
	close(g.open)
	must(t, <-created)
	if got := set(t, cpusOf(r.engine.last())); got.Intersects(own) || got.IsEmpty() {
		t.Errorf("shared CPUs %s, others own %s", got, own)
	}
	other.end("own0")
	other.end("own1")
	r.end("shared")
	m.wantEmpty()
}

func TestRefused(t *testing.T) {
	strict := placement.Settings{Policy: "single-numa-node", CPUPolicy: "dedicated"}
	m := newMachine(t)
	r := m.shim(strict)
	try := func(id string, n int) error {
		_, err := r.Create(t.Context(), &taskv3.CreateTaskRequest{ID: id, Bundle: bundle(t, specWith(cpus(n)))})
		return err
	}
	if err := try("never", 60); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("wider than a node: %v", err)
	}
	must(t, try("a", 30))
	must(t, try("b", 30))
	if err := try("c", 30); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "single-numa-node") {
		t.Errorf("no node is free: %v", err)
	}
	if e := m.entries(); len(e) != 2 {
		t.Errorf("ledger %+v", e)
	}
	r.end("a")
	must(t, try("c", 30))
	r.end("b")
	r.end("c")
	m.wantEmpty()
}

// TestUnplacedIsReleased sees nothing of a container that was not created.
func TestUnplacedIsReleased(t *testing.T) {
	m := newMachine(t)
	r := m.shim(dedicated)
	request := &taskv3.CreateTaskRequest{ID: "c", Bundle: bundle(t, specWith(cpus(3)))}
	r.engine.on("create", failing)
	if _, err := r.Create(t.Context(), request); err == nil {
		t.Fatal("created")
	}
	m.wantEmpty()
	if _, err := ledger.ReadRecord(request.Bundle); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("record after the failure: %v", err)
	}
}

func (r *rig) update(id string, res *specs.LinuxResources) error {
	r.t.Helper()
	data, err := json.Marshal(res)
	must(r.t, err)
	_, err = r.Update(r.t.Context(), &taskv3.UpdateTaskRequest{ID: id, Resources: &anypb.Any{Value: data}})
	return err
}
