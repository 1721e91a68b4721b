// Package shim is containerd's runtime v2 contract, for containerd 1.7 to 2.4,
// and knows nothing of containers. A binary joins a [Runtime] to it and calls
// [Run]; the package reads the command line and does one of:
//
//   - start: find the group that the container belongs to, bind the group's
//     socket, leave a daemon behind that serves it, and answer with its
//     address; or, if the group's daemon is there already, with that one's;
//   - serve (no command): be that daemon, with the runtime's Task service on
//     the inherited socket, until there is nothing left to do;
//   - delete: have the runtime clean up what a container left, and, where the
//     container is one whose daemon died, what the whole group left;
//   - -info, -v: describe the runtime.
//
// # Which containerd
//
// containerd 2.3 and later write a BootstrapParams message to the standard
// input of start and read a BootstrapResult; those before write an Any with
// the runtime's options, or nothing, and read JSON. The input decides which
// answer is given. The JSON answer names version 2 of the Task service, which
// is the newest that every such containerd understands, the other version 3.
//
// # Invariants
//
//   - A start that succeeds writes nothing to standard error, and nobody that
//     it leaves behind holds its standard streams: containerd parses both
//     streams as one and reads until the last holder closes them.
//   - A start that fails leaves no process, no socket and no file.
//   - One group has one daemon. Who binds, and who replaces the socket of a
//     daemon that died, holds a lock on the socket directory (flock(2)), and a
//     socket is replaced only if it refuses connections.
//   - A daemon that holds no container removes its socket before it closes its
//     connections. So a socket that refuses connections tells of a daemon that
//     left containers behind, and only then does delete touch a container other
//     than its own.
//   - The daemon never waits for containerd: the log drops lines and the
//     [Publisher] queues events. It has no reaper and is no subreaper; each
//     child process belongs to who started it.
//
// # Signals of the daemon
//
// SIGTERM and SIGINT end the daemon in good order as soon as nothing of its
// containers runs: at once, or within two minutes; after that they are
// forgotten. Containers so survive a stray one, and a host that shuts down does
// not wait for the daemon of containers that have ended. What delete has to
// tell of those is in their bundles. SIGHUP and SIGPIPE are ignored. SIGUSR1
// writes all goroutines to the log. A daemon without containers to which nobody
// is connected for a minute ends itself.
//
// # Needs
//
// Linux 4.5 or newer. Core scheduling (SCHED_CORE) needs 5.14. With the build
// tag shim_pprof, a daemon started with -debug serves net/http/pprof on the
// debug socket; without it there is no debug socket.
package shim
