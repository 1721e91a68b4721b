// Package task is containerd's Task service: containers, the processes in
// them, their states, their standard streams and their exits.
//
// It does not know how a container is made; an [Engine] does that
// (task/native, task/external). It does not know how containerd finds the
// shim, nor how events travel; package shim does that. It joins package
// rootfs (the tree a container runs in) and package cgroups (what its cgroup
// tells) to an engine.
//
// # Lifecycle
//
// A container's init and each process executed in it go through the states of
// one table (state.go):
//
//	             Start           Pause          exit
//	created ──► starting ──► running ──► paused ──► stopped ──► deleted
//	    │            │        ▲    │      │  ▲            ▲
//	    │            │        └────┼──────┘  │ Resume     │
//	    └────────────┴─────────────┴─────────┴── exit ────┘
//
// "creating", "starting", "pausing", "resuming" and "deleting" are entered
// before an engine is asked for something that may block and left when it
// has answered: they make a second equal request fail at once instead of
// queueing behind the first. So does "checkpointing", of a running or a paused
// container, which becomes again what it was.
//
// A container that is created from a checkpoint has no process until its Start
// restores it: it can be started or deleted, and nothing else happens to it.
//
// # Locks
//
// There are two, and they are never held together: Service.mu guards the set
// of containers; Container.mu guards everything that changes in a container
// and in its processes. Neither is held across a system call that may block,
// an engine call or a wait. Events are queued under Container.mu in the same
// critical section as the state change they tell of, so the order of the
// queue is the order of what happened.
//
// # Invariants
//
//   - Create is published before Start, Start before Exit, Exit before
//     Delete; for an exec added, started, exit.
//   - Every started process has exactly one start and one exit event. An exec
//     whose start failed has neither; a container's init has always an exit,
//     but one that was to be restored and never was.
//   - The exit of a container's init is the container's last exit, and no
//     exec starts after init is known to have exited.
//   - The exit of a container of which a checkpoint is being made is told
//     after the checkpoint.
//   - An out-of-memory event precedes the exit of init.
//   - exit.json is in the bundle before the exit is published.
//   - Each process has one waiter, on its own pidfd; nothing in the shim
//     waits for "any child" (docs/decisions/no-reaper.md).
//   - State, Connect, Pids, Kill and Wait never wait for Create, Start, Exec
//     or Delete of the same container.
//   - What a failed Create made is undone before its error is returned.
//
// Linux 5.10 is needed for pidfds; what the root filesystem needs, package
// rootfs says.
package task
