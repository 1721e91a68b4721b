package numa

import (
	"fmt"

	"containerd-shim-numa-v1/numa/cpuset"
)

// check says where a topology does not keep what its documentation promises:
// the rest of the package would go out of bounds.
func (t *Topology) check() error {
	if t.Online.IsEmpty() || !t.Isolated.IsSubset(t.Online) {
		return fmt.Errorf("CPUs %q online, %q isolated", t.Online, t.Isolated)
	}
	for _, check := range []func(*Topology) error{checkNodes, checkCores, checkCaches} {
		if err := check(t); err != nil {
			return err
		}
	}
	if hash := t.hash(); t.Hash != hash {
		return fmt.Errorf("hash %q instead of %q", t.Hash, hash)
	}
	return nil
}

// partition is the union of sets that must be disjoint and not empty.
type partition struct {
	whole cpuset.Set
	first int
}

func (p *partition) add(cpus cpuset.Set) error {
	if cpus.IsEmpty() || cpus.Intersects(p.whole) {
		return fmt.Errorf("CPUs %q are none, or also in another", cpus)
	}
	p.whole = p.whole.Union(cpus)
	return nil
}

// addNext also demands that sets come by ascending first CPU.
func (p *partition) addNext(cpus cpuset.Set) error {
	if !p.whole.IsEmpty() && cpus.Min() <= p.first {
		return fmt.Errorf("CPUs %q are out of order", cpus)
	}
	p.first = cpus.Min()
	return p.add(cpus)
}

func checkNodes(t *Topology) error {
	var p partition
	last := -1
	for i, n := range t.Nodes {
		if n.ID <= last || n.ID >= maxNodes {
			return fmt.Errorf("node %d after node %d", n.ID, last)
		}
		last = n.ID
		if len(n.Distance) != len(t.Nodes) || n.Distance[i] != acpiLocal {
			return fmt.Errorf("node %d: distances %v to %d nodes", n.ID, n.Distance, len(t.Nodes))
		}
		if n.Memory < 0 {
			return fmt.Errorf("node %d: %d bytes of memory", n.ID, n.Memory)
		}
		if n.CPUs.IsEmpty() {
			continue
		}
		if err := p.add(n.CPUs); err != nil {
			return fmt.Errorf("node %d: %w", n.ID, err)
		}
	}
	if !p.whole.Equal(t.Online) {
		return fmt.Errorf("nodes have CPUs %q of %q", p.whole, t.Online)
	}
	return nil
}

func checkCores(t *Topology) error {
	var p partition
	threads := 0
	for _, c := range t.Cores {
		if err := p.addNext(c.CPUs); err != nil {
			return fmt.Errorf("core of CPUs %q: %w", c.CPUs, err)
		}
		if c.Node < 0 || c.Node >= len(t.Nodes) || !c.CPUs.IsSubset(t.Nodes[c.Node].CPUs) {
			return fmt.Errorf("core of CPUs %q is not within its node", c.CPUs)
		}
		if c.Cache < -1 || c.Cache >= len(t.Caches) || c.Cache >= 0 && !c.CPUs.IsSubset(t.Caches[c.Cache].CPUs) {
			return fmt.Errorf("core of CPUs %q is not within its cache", c.CPUs)
		}
		threads = max(threads, c.CPUs.Len())
	}
	if !p.whole.Equal(t.Online) || threads != t.ThreadsPerCore {
		return fmt.Errorf("cores of %d threads have CPUs %q of %q", threads, p.whole, t.Online)
	}
	return nil
}

func checkCaches(t *Topology) error {
	var p partition
	for i, c := range t.Caches {
		if err := p.addNext(c.CPUs); err != nil {
			return fmt.Errorf("cache %d: %w", i, err)
		}
		if !c.CPUs.IsSubset(t.Online) {
			return fmt.Errorf("cache %d: CPUs %q of %q", i, c.CPUs, t.Online)
		}
		if c.Node < 0 || c.Node >= len(t.Nodes) || !t.Nodes[c.Node].CPUs.Contains(c.CPUs.Min()) {
			return fmt.Errorf("cache %d of CPUs %q is not at its node", i, c.CPUs)
		}
	}
	return nil
}
