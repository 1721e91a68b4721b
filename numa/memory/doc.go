// Package memory asks the kernel two things about memory nodes: whether it
// would accept a memory policy, and when nodes run short.
//
// Not its job: to choose nodes (package numa) or to give a container a policy,
// which its runtime does.
//
// Why nodes are polled rather than watched: pressure stall information, kernel
// Documentation/accounting/psi.rst, tells too late. A container that is bound to
// a node and fills it with anonymous memory stalls for less than a trigger can
// see until it is killed, since nothing can be reclaimed: in a guest with Linux
// 6.12 it was killed 20 and 350 ms after the first event, both before a wider
// cpuset.mems had an effect; where clean page cache was reclaimed at a moderate
// pace there was no event at all. cgroup v1 has cpuset.memory_pressure, which
// counts the same.
//
// Kernels: set_mempolicy(2); MPOL_PREFERRED_MANY is of 5.15.
package memory
