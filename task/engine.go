package task

import (
	"context"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa/cpuset"
)

// Engine makes containers. A shim process uses one engine for all of its
// containers. One that is an io.Closer is closed when the shim ends.
type Engine interface {
	// Create makes a container whose init waits to be started. When it
	// returns an error nothing of the container is left.
	Create(ctx context.Context, r CreateRequest) (Instance, error)
}

// Restorer is an Engine that makes containers from checkpoints.
type Restorer interface {
	// Restore prepares a container that its Start restores. Until then there
	// is nothing of it but the Instance, whose Init must not be asked for;
	// after a Start that failed there is nothing again.
	Restore(ctx context.Context, r RestoreRequest) (Instance, error)
}

// RestoreRequest is what an engine needs to restore a container.
type RestoreRequest struct {
	// Of Inherited there is none: Spec's root is attached on the host.
	CreateRequest
	// Images is the absolute path of the directory that holds the checkpoint.
	Images string
	// Work is a directory, there during Start, for criu's restore.log.
	Work string
}

// CreateRequest is what an engine needs to make a container.
type CreateRequest struct {
	ID string
	// Bundle is the absolute path of the bundle directory.
	Bundle string
	// Root is the directory that holds the engine's state of all containers
	// of the namespace, such as /run/containerd/runc/default.
	Root string
	// Spec is the container's own copy: the engine may change it.
	Spec  *specs.Spec
	Stdio Files
	// Inherited are files for the container's init, in the order in which
	// it finds them from descriptor 3 on; rootfs.AttachInherited closes them.
	Inherited []*os.File
	// Near are CPUs to do the work on, where the engine can, since the
	// container's memory is near them; empty for anywhere. They say nothing
	// of where the container runs.
	Near cpuset.Set

	NoPivotRoot   bool
	NoNewKeyring  bool
	SystemdCgroup bool
}

// Files are the child's ends of its standard streams. Nil means /dev/null,
// or the terminal if there is one.
type Files struct {
	Stdin, Stdout, Stderr *os.File
	// Console is a socket over which the engine sends the master of the
	// terminal it makes; nil if the process has none.
	Console *os.File
}

// Instance is one container of an engine. Its methods may be called from
// several goroutines; only those that say so may block for long.
type Instance interface {
	// Init is the container's first process.
	Init() Child
	// Start lets init execute the program of the spec. It blocks until init
	// has gone on to do so, or has died.
	Start(ctx context.Context) error
	// Exec runs one more process in the container. It may block.
	Exec(ctx context.Context, p *specs.Process, f Files) (Child, error)
	// KillAll signals every process in the container's cgroup.
	KillAll(sig unix.Signal) error
	// Pause freezes the container's cgroup; Resume thaws it.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	// Update changes limits. What r leaves unset stays as it is.
	Update(ctx context.Context, r *specs.LinuxResources) error
	// Pids are the container's processes, in the shim's PID namespace.
	Pids() ([]int, error)
	// Delete removes the cgroups and the engine's state of a container whose
	// init has exited. It may be called again after an error.
	Delete(ctx context.Context) error
}

// Checkpointer is an Instance of which checkpoints can be made.
type Checkpointer interface {
	// Checkpoint writes all of the container's processes to files. It may
	// block for long. After an error the container runs on as before.
	Checkpoint(ctx context.Context, r CheckpointRequest) error
}

// CheckpointRequest says where a checkpoint goes and what may be in it.
type CheckpointRequest struct {
	// Images is the absolute path of the directory that receives the images.
	Images string
	// Work is a directory for criu's dump.log and statistics.
	Work string
	// Parent is the directory, relative to Images, of an earlier checkpoint:
	// memory that has not changed since is not written again. Empty for none.
	Parent string
	// LeaveRunning lets the processes go on afterwards.
	LeaveRunning bool

	// What would make the checkpoint fail if it were not allowed, because
	// whoever restores it has to provide for it: established TCP connections,
	// Unix sockets connected to processes outside of the container, a
	// terminal from outside of it, and file locks.
	OpenTCP, ExternalUnixSockets, Terminal, FileLocks bool
	// EmptyNamespaces are names of the runtime-spec ("network") of namespaces
	// that are restored without what is in them.
	EmptyNamespaces []string
	// CgroupsMode is what criu does about cgroups: soft, full, strict, ignore,
	// or empty for criu's default.
	CgroupsMode string
}

// Child is a process that an engine started, as a child of the shim.
type Child interface {
	// Pid is the process's id in the shim's PID namespace.
	Pid() int
	// Signal sends sig through the process's pidfd, so that it can never hit
	// another process: os.ErrProcessDone if the process has exited.
	Signal(sig unix.Signal) error
	// Wait blocks until the process has exited and reaps it. It is called
	// exactly once.
	Wait() Exit
}

// Exit is how and when a process ended.
type Exit struct {
	// Status is the exit code, or 128 plus the number of the signal that
	// ended the process.
	Status uint32
	At     time.Time
}

// StatusUnknown is told of a process whose exit the kernel does not tell, as
// containerd does.
const StatusUnknown = 255

// signalStatusBase is what shells and container runtimes add to a signal's
// number to tell of it in an exit status.
const signalStatusBase = 128

// ExitOf tells the exit of a process from its wait status.
func ExitOf(ws unix.WaitStatus, at time.Time) Exit {
	if ws.Signaled() {
		return Exit{Status: signalStatusBase + uint32(ws.Signal()), At: at}
	}
	return Exit{Status: uint32(ws.ExitStatus()), At: at}
}
