// Package native is the engine that runs containers through runc's
// libcontainer inside the shim, without executing a runtime.
//
// It is, with the command's init re-exec, the only importer of libcontainer.
// It knows nothing of containerd's API, of standard streams beyond the files
// it passes on, or of how a root filesystem is made.
//
// libcontainer was written for a command that ends after one operation. In a
// process that lives as long as its containers it has traps; what this
// package does about each:
//
//   - It locks a container's mutex for as long as a start or an exec takes.
//     Here each operation but create and start loads a handle of its own
//     from state.json, so no operation waits for another.
//   - An update leaves marks in the handle that make every later exec fail
//     (SkipDevices) and, when it fails, the values it failed to set. The
//     handle is thrown away.
//   - It waits for its own children: the stages of init, helpers for user
//     namespaces and idmapped mounts, hooks. Nothing here or elsewhere in the
//     shim waits for a child it does not own. What it has waited for itself
//     after an error, such as an init whose poststart hook failed, gets no
//     second waiter: that is made once a start has succeeded.
//   - A goroutine that makes a container's mount sources enters the
//     container's mount namespace and relies on its thread being destroyed
//     after it, which the runtime cannot do to the main thread. The command
//     locks its main goroutine to the main thread in an init function.
//   - A start that fails leaves children behind that nobody waits for, and a
//     zombie in the container's PID namespace holds up the exit of its init.
//     They are reaped here (spawn.go).
//   - Starting opens the exec FIFO in a goroutine that stays behind if init
//     dies first. Here the FIFO is opened without blocking and watched
//     together with init's pidfd.
//   - A restore mounts the root filesystem and volumes on the host while it
//     lasts, and criu mounts cgroups. Here it has a mount namespace of its own,
//     so that nothing stays if all of them are killed.
//   - Where the shim works for a container is not where the container runs:
//     near.go says why neither learns of the other's CPUs.
//   - Each start marks all descriptors of the shim close-on-exec. What init is to
//     inherit is passed as a file of the process.
//   - Its watch for out-of-memory kills holds a thread for each container.
//     Package cgroups has one of its own.
//   - Its specification converter writes the owner of a container's device nodes
//     into those of all containers of the process. Here each has its own
//     (devices.go).
//   - The same converter takes the working directory for the bundle. Here the
//     spec's paths are absolute and the label is set.
//
// What has no cure here, or needs none: init is the shim's whole program once
// more, so its memory, and the time it takes to come up, count against each
// container and each exec (a test in test/repo counts what is linked); its
// threads count against a container's limit of processes, so an exec may fail
// where its program alone would not. A signal for the death of the parent, which
// is that of the thread that made a process, is never asked for, and would not
// outlive the double fork that init comes from. A panic in one of libcontainer's
// goroutines ends the shim: containerd's delete command then ends its
// containers.
//
// Linux 5.10 is needed for pidfds; cgroup v1, hybrid and v2 are served.
package native
