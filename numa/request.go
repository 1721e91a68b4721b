package numa

import "containerd-shim-numa-v1/numa/cpuset"

// Policy says how much a request insists on one node. The words are those of
// kubelet's Topology Manager.
type Policy int

const (
	// BestEffort prefers one node and takes what there is.
	BestEffort Policy = iota
	// Restricted fails where a machine like this, empty, could have given a
	// better alignment than the one that is free now.
	Restricted
	// SingleNode fails unless the request is on one node.
	SingleNode
	// Unplaced leaves the container alone: it is only accounted for. Dedicated
	// and Unplaced, it owns all that it is granted: the way to account for CPUs
	// that kubelet or an operator has given exclusively.
	Unplaced
)

// CPUPolicy says whose the CPUs are.
type CPUPolicy int

const (
	// Shared: all granted CPUs of the node that no dedicated claim owns.
	Shared CPUPolicy = iota
	// Dedicated: CPUs of its own among this runtime's containers.
	Dedicated
)

// ThreadPolicy says how dedicated CPUs use SMT.
type ThreadPolicy int

const (
	// PreferCores takes whole cores where possible.
	PreferCores ThreadPolicy = iota
	// RequireCores takes whole cores always, rounding up: no core is shared
	// with another container.
	RequireCores
	// IsolateThreads takes one thread of each core and leaves the others idle.
	IsolateThreads
)

// CachePolicy says how dedicated CPUs lie to last-level caches.
type CachePolicy int

const (
	// PreferCache keeps a dedicated set within as few caches as possible.
	PreferCache CachePolicy = iota
	// RequireCache fails (or, with BestEffort, is logged as missed) unless the
	// set is within one cache.
	RequireCache
	// IgnoreCache does not look at caches.
	IgnoreCache
)

// MemoryPolicy says where a container's memory comes from.
type MemoryPolicy int

const (
	// LocalMemory sets nothing: the first touch decides, which is local.
	LocalMemory MemoryPolicy = iota
	// PreferredMemory is MPOL_PREFERRED_MANY (MPOL_PREFERRED of one node).
	PreferredMemory
	// BindMemory is cpuset.mems: nothing is ever allocated elsewhere.
	BindMemory
	// InterleaveMemory is MPOL_INTERLEAVE over the chosen nodes.
	InterleaveMemory
)

// Strategy chooses among nodes that fit equally well. It is the node's
// setting, not a container's.
type Strategy int

const (
	// Adaptive hurts the expected future least, then balances.
	Adaptive Strategy = iota
	// Pack fills the fullest node that fits.
	Pack
	// Spread takes the emptiest.
	Spread
)

// Request is what a container, or a pod as a whole, asks for.
type Request struct {
	Policy   Policy
	CPU      CPUPolicy
	Thread   ThreadPolicy
	Cache    CachePolicy
	Memory   MemoryPolicy
	Strategy Strategy

	// Milli is the CPU asked for, in thousandths of a CPU: what is accounted.
	Milli int
	// Width is how many CPUs the container must at least see, its limit
	// rounded up: 0 where there is none. For Dedicated it is how many CPUs it
	// gets, at least 1.
	Width int
	// Bytes is the memory that it is expected to use, 0 if unknown.
	Bytes int64
	// Hugepages are the bytes per page size in bytes, such as 2<<20.
	Hugepages map[int64]int64
	// Devices are the IDs of the nodes that its devices hang on, one for each
	// device whose node is known.
	Devices []int

	// Granted are the CPUs that it may use, never empty; Mems the memory nodes
	// (IDs), empty for all.
	Granted, Mems cpuset.Set

	// Pod names the pod, "" for none: its reservation and the claims of its
	// other containers draw the container to their nodes.
	Pod string
	// Previous are what it had before it was resized or restarted; Place
	// keeps what it can of them.
	PreviousNodes, PreviousCPUs cpuset.Set
}

// Placement is where a request is put.
type Placement struct {
	// Nodes are node IDs, ascending by nothing but number; empty for Unplaced.
	Nodes cpuset.Set
	// CPUs is the cpuset for the container now. For a shared claim it is
	// what SharedCPUs says, which changes as dedicated claims come and go.
	CPUs cpuset.Set
	// Owned and Idle as in Claim.
	Owned, Idle cpuset.Set
	// Mems are the IDs of the nodes for cpuset.mems or the memory policy;
	// empty where nothing is to be set.
	Mems cpuset.Set

	// Candidates are the nodes, or sets of nodes, that were weighed, best
	// first, at most MaxCandidates.
	Candidates []Candidate
	// Reason says in words why the first of them was taken.
	Reason string
	// Missed lists wishes that could not be met, in words, such as "devices on
	// node 1" or "2 cores are shared".
	Missed []string
}

// MaxCandidates bounds Placement.Candidates.
const MaxCandidates = 8

// Candidate is a set of nodes that a request could have been put on.
type Candidate struct {
	Nodes cpuset.Set `json:"nodes"`
	// Rejected says why it cannot take the request; "" if it can.
	Rejected string `json:"rejected,omitempty"`
	// Cost are the terms of the objective, compared from the first on, less is
	// better. docs/placement.md names them.
	Cost []float64 `json:"cost,omitempty"`
}
