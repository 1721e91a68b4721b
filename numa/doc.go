// Package numa knows a machine's CPUs and memory and decides where on them a
// container is to run.
//
// A [Topology] is what sysfs tells of the machine, read once and never
// changed; a [Machine] tells when another is to be read. [Topology.Place] is a pure function: of the topology, of what the
// containers that are there hold ([Claim]), and of a [Request]. It opens no
// file, asks no clock, draws no random number, and gives the same answer to
// the same question.
//
// Not its job: to remember what was decided (package ledger, below this one),
// to read what a container asks for from its spec, or to make the kernel
// respect a placement (packages task and cgroups).
//
// What holds of every [Placement]:
//   - its CPUs are online CPUs that the request grants, and its memory nodes
//     are nodes that the request grants: a placement narrows, never widens;
//   - CPUs is not empty;
//   - dedicated CPUs of one claim are in no other claim's set, shared or
//     dedicated, as long as each node keeps enough CPUs for its shared claims.
//
// The kernel: sysfs as of Linux 4.18; what an older or odder kernel does not
// tell is taken as one package, one node, or no cache, as the case may be.
package numa
