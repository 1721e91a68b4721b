// Package placement joins a container's spec to a place on the machine: it
// reads what the container asks for, has package numa choose, enters the
// choice in the host's ledger, and writes it into the spec.
//
// Not its job: to choose (numa), to remember (numa/ledger), to write cgroups
// (an engine), or to know when containers come and go (task).
//
// # What holds
//
//   - A placement narrows, never widens: the CPUs that a container gets are a
//     subset of those that its spec, the cgroup above it and the kernel give.
//   - A cpuset that kubelet's CPU manager gave exclusively, that a DRA driver
//     gave, or that is no wider than the container's limit, stays as it is.
//   - Whatever goes wrong, the container runs as it would without a
//     placement: said once for each cause, and counted. Only a policy that
//     demands a placement fails a Create, and never an Update.
//   - An entry is in the ledger before the container's cgroup exists and is
//     released when it is gone; what is in force is in the bundle's
//     placement.json.
//   - Nothing is read or written for a container whose node's or runtime's
//     policy is "none".
//
// A [Placed] is used by several goroutines; whatever changes it or the
// container's cpuset is done by one at a time. A nil *Placed is a container
// that is left alone.
//
// The kernel: a cpuset controller, of cgroup v1 or v2; without one nothing is
// placed.
package placement
