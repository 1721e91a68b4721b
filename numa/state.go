package numa

import "containerd-shim-numa-v1/numa/cpuset"

// Claim is what one container, or a pod's reservation, holds of the machine.
type Claim struct {
	// Pod names the pod, "" for none. Sandbox marks the reservation of the
	// pod's totals: the pod's load on its nodes is the larger one of it and
	// of the sum of its containers' claims.
	Pod     string
	Sandbox bool

	Milli, Width int
	Bytes        int64
	// Nodes are the IDs of the nodes that it was placed on; empty if unplaced,
	// which then weighs on all CPUs it is granted.
	Nodes cpuset.Set
	// Owned are its dedicated CPUs, empty for a shared claim. Idle are the
	// siblings that nobody may use while it is there (IsolateThreads).
	Owned, Idle cpuset.Set
	// Granted are the CPUs that the spec and the cgroup above allow.
	Granted cpuset.Set
}

// size is how many CPUs a claim takes, for the histogram of demand.
func (c *Claim) size() int {
	return max(c.Owned.Len()+c.Idle.Len(), ceilDiv(min(c.Milli, mostCPUs*milliPerCPU), milliPerCPU))
}

// State is what a placement depends on besides topology and request. The order
// of the claims does not matter.
type State struct {
	// Claims are those of all containers but the one that is placed.
	Claims []Claim
	// Demand is what sizes of requests came before.
	Demand Demand
	// FreeBytes are the free bytes of each node, by index in Topology.Nodes;
	// nil if they are not known. Only BindMemory asks for them.
	FreeBytes []int64
	// FreeHugepages are the free bytes in pages of a size, by page size in
	// bytes and then by index in Topology.Nodes; a size that is missing is not
	// known.
	FreeHugepages map[int64][]int64
}

// milliPerCPU: CPUs are asked for in thousandths, as in Kubernetes.
const milliPerCPU = 1000

// mostCPUs is how many any machine has: what a claim has more is no different.
const mostCPUs = cpuset.MaxID + 1

func ceilDiv(a, b int) int { return (a + b - 1) / b }
