package numa

import "containerd-shim-numa-v1/numa/cpuset"

// SharedCPUs are the CPUs of a shared claim as of now: those it is granted on
// its nodes that nobody owns or keeps idle. Where nothing would be left it is
// all it is granted on its nodes, and so never empty. A dedicated claim has
// what it owns, an unplaced one what it is granted.
func (t *Topology) SharedCPUs(c Claim, others []Claim) cpuset.Set {
	if !c.Owned.IsEmpty() {
		return c.Owned
	}
	usable := t.usable(c.Granted)
	if c.Nodes.IsEmpty() {
		return usable
	}
	var home cpuset.Set
	for i := range t.Nodes {
		if c.Nodes.Contains(t.Nodes[i].ID) {
			home = home.Union(t.Nodes[i].CPUs)
		}
	}
	home = home.Intersect(usable)
	if home.IsEmpty() {
		return usable
	}
	if left := home.Difference(takenBy(others)); !left.IsEmpty() {
		return left
	}
	return home
}

// usable are the granted CPUs that a container is placed on: those online,
// without isolated ones unless there are no others. Where none is online it is
// what was granted, for the kernel to judge.
func (t *Topology) usable(granted cpuset.Set) cpuset.Set {
	online := granted.Intersect(t.Online)
	if online.IsEmpty() {
		return granted
	}
	if normal := online.Difference(t.Isolated); !normal.IsEmpty() {
		return normal
	}
	return online
}

// takenBy are the CPUs that claims own or keep idle.
func takenBy(claims []Claim) cpuset.Set {
	return cpuset.Collect(func(yield func(int) bool) {
		for i := range claims {
			for cpu := range claims[i].Owned.All() {
				if !yield(cpu) {
					return
				}
			}
			for cpu := range claims[i].Idle.All() {
				if !yield(cpu) {
					return
				}
			}
		}
	})
}
