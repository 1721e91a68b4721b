// Package rig runs a private containerd on a machine of its own, so that a
// test can start, crash and inspect it without touching the host's.
//
// Job: build the pinned containerd, ctr, runc shim and runc; isolate the
// calling program in fresh mount and PID namespaces; write containerd's
// configuration and run it; make OCI images without a daemon; take a census
// of everything a container can leave behind; record containerd's events and
// check their order.
//
// Non-job: it makes no statement about any shim. Suites do that.
//
// Invariants: nothing outlives the program that called Isolate, however it
// died. The kernel ends the PID namespace and, with it, every mount; the
// working directory and the run's cgroups are removed by the outer process.
// The mount table inside is shared, as systemd leaves it on hosts, so a mount
// that escapes a container is seen.
//
// Kernel: root, overlayfs, cgroup v1 (all controllers or hybrid) or v2, Linux
// 5.19 for idmapped layers.
package rig
