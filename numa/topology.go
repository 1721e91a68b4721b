package numa

import "containerd-shim-numa-v1/numa/cpuset"

// Topology is the machine as far as placement cares. It does not change once
// made, so it may be shared between goroutines.
type Topology struct {
	// Nodes are the online memory nodes, by ascending ID. A machine whose
	// kernel knows no nodes has one, with the ID 0.
	Nodes []Node
	// Cores are the cores with a CPU online, by ascending first CPU.
	Cores []Core
	// Caches are the last-level caches, by ascending first CPU; none where the
	// kernel does not tell.
	Caches []Cache
	// Online are the CPUs that run. Isolated are those among them that the
	// kernel command line keeps from the scheduler's balancing (isolcpus):
	// they are only placed on if a request grants nothing else.
	Online, Isolated cpuset.Set
	// ThreadsPerCore is the most CPUs online that any core has: 1 without SMT.
	ThreadsPerCore int
	// Hash tells topologies apart: it is a function of all of the above but
	// Node.Memory, whose size changes under a running virtual machine. 16
	// hexadecimal digits.
	Hash string
}

// Node is a memory node: a NUMA domain of the kernel.
type Node struct {
	ID int
	// Package is the physical package of its first CPU; -1 without a CPU.
	Package int
	// CPUs are its CPUs online; empty for a memory-only node.
	CPUs cpuset.Set
	// Memory is its MemTotal in bytes, as of when it was read: 0 for a node
	// without memory, and where the kernel knows no nodes.
	Memory int64
	// Distance is the ACPI distance to each node of Topology.Nodes, by index;
	// 10 is local.
	Distance []int
	// Default tells that memory may be placed here without being asked for:
	// false for nodes of a slower memory tier than the CPUs' own (CXL, PMEM)
	// and for memory without a CPU, such as a GPU's.
	Default bool
}

// Core is a physical core.
type Core struct {
	// CPUs are its threads that are online, at least one.
	CPUs cpuset.Set
	// Node is the index in Topology.Nodes, Cache that in Topology.Caches or
	// -1 where it is not known.
	Node, Cache int
	// Package and Die are the kernel's numbers. Dies are numbered per package.
	Package, Die int
	// Efficient tells a slow core of a hybrid machine.
	Efficient bool
}

// Cache is a last-level cache that cores share.
type Cache struct {
	// CPUs are its CPUs online.
	CPUs cpuset.Set
	// Node is the index in Topology.Nodes of its first CPU: a cache may span
	// nodes (sub-NUMA clustering) as well as a node have several.
	Node int
}
