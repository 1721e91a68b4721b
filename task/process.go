package task

import (
	"fmt"

	taskapi "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
)

// process is a container's init or a process executed in the container.
//
// The fields below "guarded" belong to Container.mu.
type process struct {
	// execID is empty for init.
	execID string
	// spec is what an exec runs; nil for init.
	spec *specs.Process
	uris URIs

	// guarded
	status Status
	child  Child // nil until the engine has made the process
	stdio  *stdio
	exit   Exit // what it says holds once status is Stopped
	// inputEnded: the input was closed before there was a process to read it.
	inputEnded bool
	// starting is closed when a Start under way has ended; nil otherwise.
	starting chan struct{}

	// exited is closed once the exit has been published.
	exited chan struct{}
}

func newProcess(execID string, u URIs) *process {
	return &process{execID: execID, uris: u, exited: make(chan struct{})}
}

func (p *process) isInit() bool { return p.execID == "" }

// pid is 0 until the process exists, and stays after its exit.
func (p *process) pid() uint32 {
	if p.child == nil {
		return 0
	}
	return uint32(p.child.Pid())
}

// signal sends sig to the process alone.
func (p *process) signal(child Child, sig unix.Signal) error {
	if err := child.Signal(sig); err != nil {
		return killError(err)
	}
	return nil
}

// hasExited tells whether status and exit are final.
func (p *process) hasExited() bool {
	return p.status == Stopped || p.status == Deleting || p.status == Deleted
}

// running tells whether there is a process that has not exited, or output of
// it that has not ended. The caller holds Container.mu.
func (p *process) running() bool {
	if p.child == nil {
		return p.starting != nil
	}
	if !p.hasExited() {
		return true
	}
	select {
	case <-p.stdio.drained:
		return false
	default:
		return true
	}
}

// response is the answer to State. A process that has not exited has status 0
// and the zero time: clients would take a missing one for 1970. container is the status of the process's
// container, which a frozen cgroup imposes on all of its processes.
func (p *process) response(id, bundle string, container Status) *taskv3.StateResponse {
	r := &taskv3.StateResponse{
		ID: id, ExecID: p.execID, Bundle: bundle,
		Pid: p.pid(), Status: p.status.wire(),
		Stdin: p.uris.Stdin, Stdout: p.uris.Stdout, Stderr: p.uris.Stderr, Terminal: p.uris.Terminal,
		ExitStatus: p.exit.Status, ExitedAt: timestamppb.New(p.exit.At),
	}
	if s := container.wire(); !p.hasExited() && (s == taskapi.Status_PAUSED || s == taskapi.Status_PAUSING) {
		r.Status = s
	}
	return r
}

// errFinished is what a signal to an exited process is answered with; kubelet
// and docker know the words.
func errFinished() error {
	return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
}
