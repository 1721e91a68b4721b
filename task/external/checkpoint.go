package external

import (
	"context"
	"errors"
	"path/filepath"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/cgroups"
	"containerd-shim-numa-v1/task"
)

var (
	_ task.Checkpointer = (*instance)(nil)
	_ task.Restorer     = (*Engine)(nil)
)

// Checkpoint has the runtime make a checkpoint. The runtime may remove a
// container that is not left running: there is nothing to delete then.
func (i *instance) Checkpoint(ctx context.Context, r task.CheckpointRequest) error {
	var actions []runc.CheckpointAction
	if r.LeaveRunning {
		actions = append(actions, runc.LeaveRunning)
	}
	return i.do(func(c *runc.Runc, _ string) error {
		return c.Checkpoint(context.WithoutCancel(ctx), i.id, &runc.CheckpointOpts{
			ImagePath: r.Images, WorkDir: r.Work, ParentPath: r.Parent,
			AllowOpenTCP: r.OpenTCP, AllowExternalUnixSockets: r.ExternalUnixSockets, AllowTerminal: r.Terminal,
			FileLocks: r.FileLocks, EmptyNamespaces: r.EmptyNamespaces, Cgroups: runc.CgroupMode(r.CgroupsMode),
		}, actions...)
	})
}

// restoring is a container of which there is nothing until it is restored.
type restoring struct {
	*instance
	engine  *Engine
	request task.RestoreRequest
}

// Restore prepares a container that Start restores.
func (e *Engine) Restore(_ context.Context, r task.RestoreRequest) (task.Instance, error) {
	rt, err := e.runtimeFor(r.CreateRequest)
	if err != nil {
		return nil, err
	}
	return &restoring{instance: &instance{runtime: rt, adopter: e.adopter}, engine: e, request: r}, nil
}

// Start has the runtime restore the container's processes. That what was
// allowed to be in the checkpoint may be in it is not asked again.
func (r *restoring) Start(ctx context.Context) error {
	// A client that stops waiting leaves no half container behind.
	ctx = context.WithoutCancel(ctx)
	init, err := r.restore(ctx)
	if err != nil {
		return errors.Join(err, r.engine.abandon(ctx, r.runtime))
	}
	cg, err := cgroups.Load(init.pid)
	if err != nil {
		_ = init.Signal(unix.SIGKILL)
		init.Wait()
		return errors.Join(err, r.engine.abandon(ctx, r.runtime))
	}
	r.init, r.cgroup = init, cg
	return nil
}

func (r *restoring) restore(ctx context.Context) (init *child, err error) {
	err = r.do(func(c *runc.Runc, scratch string) error {
		pids := filepath.Join(r.bundle, pidFile)
		var err error
		init, err = r.adopter.bear(r.request.Stdio, pids, scratch, func(io runc.IO, console runc.ConsoleSocket) error {
			_, err := c.Restore(ctx, r.id, r.bundle, &runc.RestoreOpts{
				CheckpointOpts: runc.CheckpointOpts{
					ImagePath: r.request.Images, WorkDir: r.request.Work,
					AllowOpenTCP: true, AllowExternalUnixSockets: true, FileLocks: true,
				},
				IO: io, PidFile: pids, ConsoleSocket: console, Detach: true, NoSubreaper: true, NoPivot: r.request.NoPivotRoot,
			})
			return err
		})
		return err
	})
	return init, err
}
