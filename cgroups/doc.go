// Package cgroups reads what the cgroup of a running container tells (usage,
// memory by node, processes, OOM kills, effective CPUs) and does what a shim
// must do to it (enable controllers, kill everything in it). Of a container
// that has no cgroup yet it knows which CPUs and memory nodes there are above.
// It works on cgroup v1, on the hybrid of v1 with an empty v2 hierarchy, and on
// v2.
//
// It neither creates, configures nor removes cgroups: that is the container
// runtime's. Usage comes as the protobuf messages that containerd's clients
// expect, io.containerd.cgroups.v1.Metrics and v2.Metrics; the files are read
// here, so that a shim does not carry eBPF and D-Bus for it.
//
// Invariants:
//
//   - A cgroup may be removed at any time by its runtime, by systemd or by an
//     operator. What is gone counts nothing and holds no process; it is not an
//     error, except where it was to be watched.
//   - Nothing here kills a process outside of the container: Kill refuses a
//     cgroup that its caller is in, as an ancestor or a root would be.
//   - No goroutine blocks a thread, and only an OOMWatch has one.
//
// Kernels: cgroup.kill is of 5.14, before it the cgroup is frozen and its
// processes signalled one by one. OOM kills are counted by memory.oom_control
// of v1 since 4.13 and by memory.events of v2.
package cgroups
