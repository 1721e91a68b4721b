package task

import (
	"github.com/containerd/containerd/api/events"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The topics that containerd's clients subscribe to.
const (
	topicCreate       = "/tasks/create"
	topicStart        = "/tasks/start"
	topicOOM          = "/tasks/oom"
	topicExit         = "/tasks/exit"
	topicDelete       = "/tasks/delete"
	topicExecAdded    = "/tasks/exec-added"
	topicExecStarted  = "/tasks/exec-started"
	topicPaused       = "/tasks/paused"
	topicResumed      = "/tasks/resumed"
	topicCheckpointed = "/tasks/checkpointed"
)

// created publishes the creation of c from r.
func (c *Container) created(r *taskv3.CreateTaskRequest) {
	c.publish(topicCreate, &events.TaskCreate{
		ContainerID: c.id, Bundle: r.Bundle, Rootfs: r.Rootfs, Checkpoint: r.Checkpoint, Pid: c.init.pid(),
		IO: &events.TaskIO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
	})
}

// started publishes the start of p.
func (c *Container) started(p *process) {
	if p.isInit() {
		c.publish(topicStart, &events.TaskStart{ContainerID: c.id, Pid: p.pid()})
		return
	}
	c.publish(topicExecStarted, &events.TaskExecStarted{ContainerID: c.id, ExecID: p.execID, Pid: p.pid()})
}

// exited publishes the exit of p. Its ID is the container's for init and the
// exec's otherwise, as containerd's clients expect it.
func (c *Container) exited(p *process) {
	id := p.execID
	if p.isInit() {
		id = c.id
	}
	c.publish(topicExit, &events.TaskExit{
		ContainerID: c.id, ID: id, Pid: p.pid(),
		ExitStatus: p.exit.Status, ExitedAt: timestamppb.New(p.exit.At),
	})
}

// gone publishes the deletion of the whole container.
func (c *Container) gone(how *taskv3.DeleteResponse) {
	c.publish(topicDelete, &events.TaskDelete{
		ContainerID: c.id, Pid: how.Pid, ExitStatus: how.ExitStatus, ExitedAt: how.ExitedAt,
	})
}
