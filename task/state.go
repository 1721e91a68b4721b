package task

import (
	"fmt"
	"slices"

	taskapi "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
)

// Status is where a process is in its life.
type Status uint8

// The states; doc.go draws them.
const (
	Creating Status = iota
	Created
	Starting
	Running
	Pausing
	Paused
	Resuming
	Checkpointing       // while running
	CheckpointingPaused // while paused
	Stopped
	Deleting
	Deleted
)

var statusNames = [...]string{
	Creating: "creating", Created: "created", Starting: "starting", Running: "running",
	Pausing: "pausing", Paused: "paused", Resuming: "resuming",
	Checkpointing: "checkpointing", CheckpointingPaused: "checkpointing paused",
	Stopped:  "stopped",
	Deleting: "deleting", Deleted: "deleted",
}

func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", s)
}

// transitions is the only place that says which state may follow which.
//
// A process may exit in every state in which it exists; a state that stands
// for a request under way goes back to where it came from if that fails. The
// exit of a process of which a checkpoint is made waits for the checkpoint. An
// init that was never restored is stopped by its deletion.
var transitions = map[Status][]Status{
	Creating:            {Created, Deleted},
	Created:             {Starting, Stopped, Deleting},
	Starting:            {Running, Created, Stopped},
	Running:             {Pausing, Checkpointing, Stopped},
	Pausing:             {Paused, Running, Stopped},
	Paused:              {Resuming, CheckpointingPaused, Stopped},
	Resuming:            {Running, Paused, Stopped},
	Checkpointing:       {Running},
	CheckpointingPaused: {Paused},
	Stopped:             {Deleting},
	Deleting:            {Deleted, Stopped},
	Deleted:             {},
}

// to moves s on and tells whether the table has the move. Requests are checked
// with [Status.allow] first; a state that stands for a request under way may
// have been overtaken by the process's exit, and then stays stopped.
func (s *Status) to(next Status) bool {
	if !slices.Contains(transitions[*s], next) {
		return false
	}
	*s = next
	return true
}

// allow refuses verb unless s is one of the states given.
func (s Status) allow(verb string, in ...Status) error {
	if slices.Contains(in, s) {
		return nil
	}
	kind := error(errdefs.ErrFailedPrecondition)
	if s == Deleted {
		kind = errdefs.ErrNotFound
	}
	return fmt.Errorf("cannot %s a %s process: %w", verb, s, kind)
}

// exists tells whether there is a process that has not exited.
func (s Status) exists() bool {
	switch s {
	case Created, Starting, Running, Pausing, Paused, Resuming, Checkpointing, CheckpointingPaused:
		return true
	case Creating, Stopped, Deleting, Deleted:
		return false
	}
	return false
}

// mayBeFrozen tells whether the cgroup of a container in the state is frozen,
// or may be, and may be thawed: not while a checkpoint is made, whose end sees
// to it.
func (s Status) mayBeFrozen() bool { return s == Pausing || s == Paused || s == Resuming }

// wire is the state as containerd's API has it, which knows no request under
// way but pausing.
func (s Status) wire() taskapi.Status {
	switch s {
	case Created, Starting:
		return taskapi.Status_CREATED
	case Running, Checkpointing:
		return taskapi.Status_RUNNING
	case Pausing:
		return taskapi.Status_PAUSING
	case Paused, Resuming, CheckpointingPaused:
		return taskapi.Status_PAUSED
	case Stopped, Deleting, Deleted:
		return taskapi.Status_STOPPED
	case Creating:
		return taskapi.Status_UNKNOWN
	}
	return taskapi.Status_UNKNOWN
}
