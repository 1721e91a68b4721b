package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/test/rig"
)

// The tests in this file need two CPUs, but no nodes: what they look at is who
// knows of whom. placement_test.go sees that the place is right.

// requireCPUs begins a test that needs several CPUs, and returns those online.
func requireCPUs(t *testing.T) (*scene, cpuset.Set) {
	t.Helper()
	if !ours() {
		skip(t, "placement is this project's")
	}
	online := readSet(t, sysDevices+"/cpu/online")
	if online.Len() < 2 {
		skip(t, "needs a machine with two CPUs")
	}
	return begin(t), online
}

// apartFrom is whether a shared container has none of another's CPUs, but some.
func apartFrom(other placed) func(placed) bool {
	return func(p placed) bool { return !p.CPUs.IsEmpty() && !p.CPUs.Intersects(other.CPUs) && p.Fault == "" }
}

// wantEntries sees how many containers are in the ledger.
func (s *scene) wantEntries(n int) {
	s.t.Helper()
	var entries []string
	if !rig.Eventually(bound, func() bool { entries = rig.LedgerEntries(); return len(entries) == n }) {
		s.t.Errorf("in the ledger: %q, want %d", entries, n)
	}
}

// TestSharedShrinksAndGrows has CPUs of its own come and go beside a container
// that shares all.
func TestSharedShrinksAndGrows(t *testing.T) {
	s, _ := requireCPUs(t)
	shared := s.run(idle)
	before := shared.inForce("placed", func(p placed) bool { return p.Fault == "" })
	info, err := os.Stat(filepath.Join(s.daemon.Bundle(shared.ID()), "placement.json"))
	s.must(err)
	want(t, "mode of placement.json", info.Mode().Perm(), 0o600)

	own := s.run(idle, limit(1), wishes(dedicated))
	p := own.inForce("on one CPU", func(p placed) bool { return p.CPUs.Len() == 1 })
	shared.inForce("clear of it", apartFrom(p))
	// One that comes later is apart from the beginning.
	out := s.run([]string{"/bin/sh", "-c", "grep Cpus_allowed_list /proc/self/status"})
	want(t, "exit status", out.finish(), 0)
	if later, err := cpuset.Parse(strings.TrimSpace(strings.TrimPrefix(out.stdout.String(), "Cpus_allowed_list:"))); err != nil || later.Intersects(p.CPUs) || later.IsEmpty() {
		t.Errorf("a later container is on CPUs %q, %v; %s are another's", out.stdout.String(), err, p.CPUs)
	}
	s.wantEntries(2)
	own.stop()
	shared.inForce("where it was", func(p placed) bool { return p.CPUs.Equal(before.CPUs) })
	shared.stop()
	s.wantEntries(0)
}

// TestToldItsPlace reads what a container finds in its environment.
func TestToldItsPlace(t *testing.T) {
	s, _ := requireCPUs(t)
	const show = "echo $CONTAINERD_NUMA_NODES,$CONTAINERD_NUMA_CPUS"
	c := s.run([]string{"/bin/sh", "-c", show + "; /payload wait"}, limit(1), wishes(dedicated))
	c.awaitOutput("ready")
	p := c.inForce("on one CPU", func(p placed) bool { return p.CPUs.Len() == 1 })
	want(t, "output", strings.TrimSuffix(c.stdout.String(), "ready\n"), fmt.Sprintf("%s,%s\n", p.Nodes, p.CPUs))
	c.stop()
	for name, opts := range map[string][]option{
		"env = false":          {wishes("env = false")},
		"the container's own":  {withSpec(oci.WithEnv([]string{"CONTAINERD_NUMA_NODES=", "CONTAINERD_NUMA_CPUS="}))},
		"policy none":          {wishes("policy = 'none'")},
		"annotation none":      {withAnnotation("numa.containerd.io/policy", "none")},
		"as wide as the limit": {limit(8192)},
	} {
		c := s.run([]string{"/bin/sh", "-c", show}, opts...)
		want(t, name+": exit status", c.finish(), 0)
		want(t, name+": output", c.stdout.String(), ",\n")
	}
}

// TestKilledShimFrees kills the shim of a container that owns CPUs.
func TestKilledShimFrees(t *testing.T) {
	s, _ := requireCPUs(t)
	s.gap, s.shimKilled = true, true
	shared := s.run(idle)
	before := shared.inForce("placed", func(placed) bool { return true })
	own := s.run(idle, limit(1), wishes(dedicated))
	shared.inForce("clear of it", apartFrom(own.inForce("on one CPU", func(p placed) bool { return p.CPUs.Len() == 1 })))
	if !killShim(own.ID()) {
		t.Fatal("found no shim to kill")
	}
	s.wantKilledOnce(own.ID())
	s.wantEntries(1)
	shared.inForce("where it was", func(p placed) bool { return p.CPUs.Equal(before.CPUs) })
	shared.stop()
}

// TestRefusedByPolicy asks for more than there is.
func TestRefusedByPolicy(t *testing.T) {
	s, _ := requireCPUs(t)
	_, err := s.tryCreate(idle, limit(8192), wishes(dedicated, "policy = 'single-numa-node'"))
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "single-numa-node") {
		t.Errorf("8192 CPUs: %v", err)
	}
	_, err = s.tryCreate(idle, withAnnotation("numa.containerd.io/policy", "all-of-them"))
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "all-of-them") {
		t.Errorf("annotation: %v", err)
	}
	s.wantEntries(0)
}

// TestLedgerRebuilt destroys the ledger under containers.
func TestLedgerRebuilt(t *testing.T) {
	s, _ := requireCPUs(t)
	state := filepath.Join(rig.LedgerDir, "state")
	own := s.run(idle, limit(1), wishes(dedicated))
	p := own.inForce("on one CPU", func(p placed) bool { return p.CPUs.Len() == 1 })
	for name, destroy := range map[string]func() error{
		"garbage":   func() error { return os.WriteFile(state, []byte("\x00\xffgarbage\n"), 0o600) },
		"truncated": func() error { return os.Truncate(state, 40) },
		"removed":   func() error { return os.Remove(state) },
	} {
		s.must(destroy())
		c := s.run(idle)
		c.inForce(name+": clear of the other", apartFrom(p))
		s.wantEntries(2)
		c.stop()
	}
	own.stop()
	s.wantEntries(0)
	// It is kept for whoever wants to know what happened.
	s.must(os.Remove(state + ".bad"))
}

// TestWithoutTheLedger takes the ledger away: containers run, unplaced, and
// those whose policy demands a place do not.
func TestWithoutTheLedger(t *testing.T) {
	s, online := requireCPUs(t)
	for name, take := range map[string]func() (giveBack func()){
		"locked": func() func() {
			f, err := os.Open(rig.LedgerDir)
			s.must(err)
			s.must(unix.Flock(int(f.Fd()), unix.LOCK_EX))
			return func() { f.Close() }
		},
		"read-only": func() func() {
			s.must(unix.Mount(rig.LedgerDir, rig.LedgerDir, "", unix.MS_BIND, ""))
			s.must(unix.Mount("", rig.LedgerDir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
			return func() { s.must(unix.Unmount(rig.LedgerDir, unix.MNT_DETACH)) }
		},
		"everybody's": func() func() {
			s.must(os.Chmod(rig.LedgerDir, 0o777))
			return func() { s.must(os.Chmod(rig.LedgerDir, 0o700)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			giveBack := take()
			returned := false
			defer func() {
				if !returned {
					giveBack()
				}
			}()
			c := s.run(idle, limit(1), wishes(dedicated))
			cpus, err := c.cpuset([2]string{"cpuset.effective_cpus", "cpuset.cpus.effective"})
			s.must(err)
			want(t, "its CPUs", cpus.String(), online.String())
			if p, err := c.placed(); err != nil || p.Fault == "" || !p.Nodes.IsEmpty() {
				t.Errorf("it is said to be placed: %+v, %v", p, err)
			}
			if _, err := s.tryCreate(idle, wishes("policy = 'restricted'")); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("a place is demanded: %v", err)
			}
			c.stop()
			giveBack()
			returned = true
			s.wantEntries(0)
		})
	}
}

// TestNodesOfOneCPU has the shim believe that each CPU is a node: real CPUs, so
// that what it makes of them is what the kernel does.
func TestNodesOfOneCPU(t *testing.T) {
	s, _ := requireCPUs(t)
	if len(*engineFlag) > 0 && *engineFlag != inProcess {
		skip(t, "the node's settings name the engine")
	}
	ownEtc(t)
	const nodes = 2
	s.must(os.MkdirAll(filepath.Dir(nodeSettings), 0o755))
	sys := filepath.Join(s.Dir, "sys")
	s.must(writeNodes(sys, nodes))
	t.Cleanup(func() { os.RemoveAll(sys) })
	s.must(os.WriteFile(nodeSettings, fmt.Appendf(nil, "[placement]\nsysfs = %q\nannotations = ['cpu-policy']\n", sys), 0o600))

	// Without a request, each is put where fewer are.
	used := map[string]bool{}
	var all []*container
	for range nodes {
		c := s.run(idle, withSpec(oci.WithCPUShares(900)))
		p := c.inForce("on one node", func(p placed) bool { return p.Nodes.Len() == 1 && p.CPUs.Equal(p.Nodes) })
		used[p.Nodes.String()] = true
		all = append(all, c)
	}
	want(t, "nodes used", len(used), nodes)
	for _, c := range all {
		c.stop()
	}
	// A pod's annotation, which this node allows.
	own := s.run(idle, limit(1), withAnnotation("numa.containerd.io/cpu-policy", "dedicated"))
	p := own.inForce("on one node", func(p placed) bool { return p.CPUs.Len() == 1 })
	c := s.run(idle)
	c.inForce("on the other node", apartFrom(p))
	c.stop()
	own.stop()
}

// writeNodes writes the sysfs of a machine whose nodes have one CPU each.
func writeNodes(sys string, n int) error {
	files := map[string]string{"system/cpu/online": fmt.Sprintf("0-%d", n-1), "system/node/online": fmt.Sprintf("0-%d", n-1)}
	for i := range n {
		var distances []string
		for j := range n {
			distance := 20
			if i == j {
				distance = 10
			}
			distances = append(distances, fmt.Sprint(distance))
		}
		cpu, node := fmt.Sprintf("system/cpu/cpu%d/", i), fmt.Sprintf("system/node/node%d/", i)
		files[cpu+"topology/core_cpus_list"] = fmt.Sprint(i)
		files[cpu+"topology/physical_package_id"] = fmt.Sprint(i)
		files[node+"cpulist"] = fmt.Sprint(i)
		files[node+"distance"] = strings.Join(distances, " ")
		files[node+"meminfo"] = fmt.Sprintf("Node %d MemTotal: 1048576 kB\nNode %d MemFree: 1000000 kB", i, i)
	}
	for name, text := range files {
		path := filepath.Join(sys, "devices", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o444); err != nil {
			return err
		}
	}
	return nil
}
