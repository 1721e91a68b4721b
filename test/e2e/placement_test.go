package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/test/rig"
)

const cfsPeriod = 100000 // microseconds

// limit gives a container a CPU limit.
func limit(cpus int) option { return withSpec(oci.WithCPUCFS(int64(cpus)*cfsPeriod, cfsPeriod)) }

// wishes are settings of the table [placement].
func wishes(toml ...string) option {
	return withSettings("[placement]\n" + strings.Join(toml, "\n"))
}

const (
	dedicated = "cpu-policy = 'dedicated'"
	require   = "thread-policy = 'require'"
	isolate   = "thread-policy = 'isolate'"
	bind      = "memory-policy = 'bind'"
)

func onOneNode(p placed) bool { return p.Nodes.Len() == 1 && p.Fault == "" && p.Kept == "" }

// nodeOf is the node of a container that has one.
func nodeOf(t *testing.T, nodes []numaNode, p placed) numaNode {
	t.Helper()
	for _, n := range nodes {
		if p.Nodes.Contains(n.id) {
			return n
		}
	}
	t.Fatalf("it is on nodes %q", p.Nodes)
	panic("unreachable")
}

// TestPlacementInForce runs containers of all kinds beside each other: each is
// on the CPUs of one node, as the ledger says, and no CPU is the wrong one's.
func TestPlacementInForce(t *testing.T) {
	s, nodes := requireNUMA(t)
	var shared []*container
	for range 3 {
		shared = append(shared, s.run(idle, withSpec(oci.WithCPUShares(512))))
	}
	core := s.run(idle, limit(2), wishes(dedicated, require))
	lone := s.run(idle, limit(1), wishes(dedicated, isolate))
	thread := s.run(idle, limit(1), wishes(dedicated, "pin-create = true"))
	shared = append(shared, s.run(idle, withSpec(oci.WithCPUShares(512))))

	owners := map[string]cpuset.Set{}
	for _, o := range []struct {
		*container
		cpus int
		off  bool // no other container on its cores
	}{{core, 2, true}, {lone, 1, true}, {thread, 1, false}} {
		p := o.inForce("on one node", onOneNode)
		want(t, o.ID()+": number of CPUs", p.CPUs.Len(), o.cpus)
		if !p.CPUs.IsSubset(nodeOf(t, nodes, p).cpus) {
			t.Errorf("%s: CPUs %s are not all of node %s", o.ID(), p.CPUs, p.Nodes)
		}
		owners[o.ID()] = p.CPUs
		if o.off {
			owners[o.ID()] = coresOf(t, p.CPUs)
		}
	}
	if cores := coresOf(t, owners[core.ID()]); !cores.Equal(owners[core.ID()]) {
		t.Errorf("require: CPUs %s are a part of the cores %s", owners[core.ID()], cores)
	}
	for _, c := range append(shared, core, lone, thread) {
		p := c.inForce("clear of others' CPUs", func(p placed) bool {
			for id, owned := range owners {
				if id != c.ID() && p.CPUs.Intersects(owned) {
					return false
				}
			}
			return onOneNode(p)
		})
		e := c.exec("exec", idle)
		if err := c.compare(p); err != nil {
			t.Errorf("%s with an exec: %v", c.ID(), err)
		}
		s.must(e.Kill(s.ctx, 9))
		e.status()
		e.delete()
	}
	for _, c := range []*container{core, lone, thread} {
		c.stop()
	}
	for _, c := range shared {
		c.inForce("on all of its node", func(p placed) bool { return p.CPUs.Equal(nodeOf(t, nodes, p).cpus) })
		c.stop()
	}
}

// TestPlacementMemory sees where memory is, and by which policy.
func TestPlacementMemory(t *testing.T) {
	s, nodes := requireNUMA(t)
	for _, test := range []struct{ policy, maps string }{
		{"local", "default"}, {"preferred", "prefer"}, {"bind", "default"}, {"interleave", "interleave"},
	} {
		c := s.run([]string{"/payload", "alloc", "64"}, wishes("memory-policy = '"+test.policy+"'"))
		p := c.inForce("on one node", onOneNode)
		c.awaitOutput("allocated")
		want(t, test.policy+": has nodes of its own", !p.Mems.IsEmpty(), test.policy == "bind")
		if home := c.home(p.Nodes); home < 0.9 {
			t.Errorf("%s: %.0f %% of its memory is on node %s: %v", test.policy, 100*home, p.Nodes, c.anonymous())
		}
		node := nodeOf(t, nodes, p)
		wantPolicy := test.maps
		if wantPolicy != "default" {
			wantPolicy += fmt.Sprintf(":%d", node.id)
		}
		if maps := readText(t, fmt.Sprintf("/proc/%d/numa_maps", c.task.Pid())); !strings.Contains(maps, " "+wantPolicy+" ") {
			t.Errorf("%s: numa_maps has no policy %q: %.200s", test.policy, wantPolicy, maps)
		}
		c.stop()
	}
}

// smallNode is the largest node that a test may fill, in MiB.
const smallNode = 4096

// TestPlacementBeyondTheNode has containers ask for as much memory as their
// node has, which is more than it can give: who is bound to it is killed
// beside free memory, unless it may be widened, and who is not spills.
func TestPlacementBeyondTheNode(t *testing.T) {
	s, nodes := requireNUMA(t)
	requireOwnMachine(t)
	for _, test := range []struct {
		name  string
		with  option
		pace  string // MiB per second
		spill bool
	}{
		{"local", wishes("memory-policy = 'local'"), "1000000", true},
		{"preferred", wishes("memory-policy = 'preferred'"), "1000000", true},
		{"bound", wishes(bind), "1000000", false},
		// Slow enough for ten looks in a second.
		{"widened", wishes(bind, "widen-memory = true"), "100", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := s.run(idle, test.with).placed()
			s.must(err)
			node := nodeOf(t, nodes, p)
			if node.memory > smallNode {
				skip(t, fmt.Sprintf("node %d has more than %d MiB to fill", node.id, smallNode))
			}
			c := s.run([]string{"/payload", "alloc", fmt.Sprint(node.memory), test.pace}, test.with)
			if !test.spill {
				want(t, "exit status", c.status(), 137)
				c.remove()
				return
			}
			const patience = 5 * time.Minute // for a guest's memory
			if !rig.Eventually(patience, func() bool { return strings.Contains(c.stdout.String(), "allocated") || len(c.exited) > 0 }) || len(c.exited) > 0 {
				t.Fatalf("it did not allocate its memory: %v", c.anonymous())
			}
			p, err = c.placed()
			s.must(err)
			if home := c.home(p.Nodes); home < 0.5 || home > 0.99 {
				t.Errorf("%.0f %% of its memory is on node %s: %v", 100*home, p.Nodes, c.anonymous())
			}
			if test.name == "widened" {
				c.inForce("widened", func(p placed) bool { return p.Mems.Len() > 1 })
			}
			c.stop()
		})
	}
}

func (c *container) update(r *specs.LinuxResources) {
	c.t.Helper()
	c.must(c.task.Update(c.ctx, containerd.WithResources(r)))
}

func cpuUpdate(cpus int, set cpuset.Set) *specs.LinuxResources {
	quota, period := int64(cpus*cfsPeriod), uint64(cfsPeriod)
	return &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period, Cpus: set.String()}}
}

// TestPlacementUpdates sends what kubelet and in-place resizes do.
func TestPlacementUpdates(t *testing.T) {
	s, nodes := requireNUMA(t)
	var all cpuset.Set
	for _, n := range nodes {
		all = all.Union(n.cpus)
	}
	c := s.run(idle, limit(1), wishes(dedicated))
	first := c.inForce("on one node", onOneNode)

	c.update(cpuUpdate(1, all)) // kubelet's shared pool, once more
	p := c.inForce("as it was", onOneNode)
	if !p.CPUs.Equal(first.CPUs) {
		t.Errorf("the same pool moved it from CPUs %s to %s", first.CPUs, p.CPUs)
	}
	c.update(cpuUpdate(2, cpuset.Set{}))
	p = c.inForce("resized", func(p placed) bool { return p.CPUs.Len() == 2 })
	if !first.CPUs.IsSubset(p.CPUs) || !p.Nodes.Equal(first.Nodes) {
		t.Errorf("a resize moved it from CPUs %s to %s", first.CPUs, p.CPUs)
	}
	memory := int64(256 * mib)
	c.update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}})
	c.inForce("still of two CPUs", func(p placed) bool { return p.CPUs.Len() == 2 })

	other := nodes[0]
	if p.Nodes.Contains(other.id) {
		other = nodes[1]
	}
	c.update(cpuUpdate(1, other.cpus))
	c.inForce("on the other node", func(p placed) bool {
		return onOneNode(p) && p.Nodes.Contains(other.id) && p.CPUs.IsSubset(other.cpus) && p.CPUs.Len() == 1
	})
	c.stop()
}

// pod makes a cgroup as kubelet does, with CPUs of its own, and an option that
// puts containers into it.
func (s *scene) pod(name string, cpus cpuset.Set) option {
	s.t.Helper()
	path := "/" + s.Name() + "/" + name
	s.must(rig.MakeCgroup(path))
	s.t.Cleanup(func() {
		s.removeAll()
		if err := rig.RemoveCgroup(path); err != nil {
			s.t.Errorf("remove the pod's cgroup: %v", err)
		}
	})
	write := func(cgroup, file, text string) {
		s.must(os.WriteFile(rig.CgroupFile("cpuset", cgroup, file), []byte(text), 0))
	}
	if rig.Unified() {
		write("/"+s.Name(), "cgroup.subtree_control", "+cpuset")
	} else {
		write(path, "cpuset.mems", readText(s.t, sysDevices+"/node/has_memory"))
	}
	write(path, "cpuset.cpus", cpus.String())
	n := 0
	return withSpec(func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		n++
		spec.Linux.CgroupsPath = fmt.Sprintf("%s/%d", path, n)
		return nil
	})
}

// TestPlacementUnderAParent has containers in a cgroup that has some CPUs only.
func TestPlacementUnderAParent(t *testing.T) {
	s, nodes := requireNUMA(t)
	last := nodes[len(nodes)-1]
	inPod := s.pod("narrow", last.cpus)
	within := s.run(idle, inPod, limit(1), wishes(dedicated))
	within.inForce("on the pod's node", func(p placed) bool {
		return onOneNode(p) && p.Nodes.Contains(last.id) && p.CPUs.Len() == 1
	})
	// A cpuset with no CPU in common with the parent's: v1 refuses it, v2
	// ignores it without a word. It is neither placed nor said to be.
	apart, err := s.tryCreate(idle, inPod, withSpec(oci.WithCPUs(nodes[0].cpus.String())), wishes(dedicated))
	if !rig.Unified() {
		if err == nil {
			t.Error("v1: a cpuset apart from its parent's was taken")
		}
		s.removeAll()
		return
	}
	s.must(err)
	s.must(apart.Start(s.ctx))
	cpus, err := apart.cpuset([2]string{"", "cpuset.cpus.effective"})
	s.must(err)
	want(t, "CPUs of a disjoint cpuset", cpus.String(), last.cpus.String())
	if p, err := apart.placed(); err == nil && p.Fault == "" && p.Kept == "" {
		t.Errorf("it is said to be placed: %+v", p)
	}
	apart.stop()
	within.stop()
}
