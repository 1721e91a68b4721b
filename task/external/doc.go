// Package external is the engine that runs containers through an OCI runtime
// that the user names (runc, crun, youki), by its command line, with go-runc.
//
// It is asked for by binary_name of runc's options or by runtime.binary of
// the settings; without either, containers are task/native's. It knows
// nothing of containerd's API, of how a root filesystem is made, or of what
// the runtime's own options are.
//
// A runtime's command ends as soon as the container's process exists, which
// the kernel then gives to the nearest subreaper among its ancestors
// (prctl(2), PR_SET_CHILD_SUBREAPER). With this engine, and only with it,
// that is the shim.
//
// # Invariants
//
//   - Each process of a container has one waiter, on its pidfd. Nobody waits
//     for "any child": an adopted process that is no container's init nor an
//     exec is reaped by its pid, and its exit is kept for those whose pid the
//     shim has yet to learn (adopt.go).
//   - A command of the runtime is waited for by who started it (exec.Cmd, in
//     go-runc). None is cut short by the end of a request: half a container
//     would be left. It dies with the shim (PR_SET_PDEATHSIG), and what it
//     leaves then is [Remover]'s.
//   - No command but of create, start, exec, pause, resume, update, delete,
//     checkpoint and restore: signals go through pidfds, processes and their end through the cgroup.
//   - Errors are in the runtime's own words, from its log.
//   - The runtime sees the container's standard streams and nothing else of
//     the shim's (--preserve-fds is not used).
//   - The runtime keeps a container's state in <root>/<id>, as runc, crun and
//     youki do. Without that directory there is nothing to remove.
//
// Linux 5.10 is needed for pidfds, and /proc/pid/task/tid/children
// (CONFIG_PROC_CHILDREN). The main thread must have no child of its own: the
// command locks the main goroutine to it, and that one starts no process.
package external
