// Package children handles the shim's own child processes, for every engine
// alike: a [Handle] to signal one and to await its exit, and a list of those
// that a thread has.
//
// Not its job: to start a process, to know what container it is of, or to
// decide who waits for it.
//
// What holds:
//   - A pid is a child's own only until it is waited for. So a Handle is
//     opened before, and from then on reaches that process or none.
//   - Waiting for an exit costs no thread, and no goroutine but the caller's.
//
// The kernel: Linux 5.10, for PIDFD_NONBLOCK (pidfd_open(2)); a list needs
// CONFIG_PROC_CHILDREN.
package children
