package external

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	runc "github.com/containerd/go-runc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/cgroups"
	"containerd-shim-numa-v1/task"
)

// instance is one container.
type instance struct {
	runtime
	adopter *adopter
	init    *child
	cgroup  *cgroups.Cgroup
}

var _ task.Instance = (*instance)(nil)

func (i *instance) Init() task.Child { return i.init }

// Start has the runtime start init. A start that is given up is ended: it
// only waits for init to go on.
func (i *instance) Start(ctx context.Context) error {
	return i.do(func(c *runc.Runc, _ string) error { return c.Start(ctx, i.id) })
}

// Exec has the runtime start one more process. Half of one is worse than one
// that nobody waits for any more, so the request's end does not end it.
func (i *instance) Exec(ctx context.Context, p *specs.Process, f task.Files) (task.Child, error) {
	var process *child
	err := i.do(func(c *runc.Runc, scratch string) error {
		pids := filepath.Join(scratch, pidFile)
		var err error
		process, err = i.adopter.bear(f, pids, scratch, func(io runc.IO, console runc.ConsoleSocket) error {
			return c.Exec(context.WithoutCancel(ctx), i.id, *p, &runc.ExecOpts{
				IO: io, PidFile: pids, ConsoleSocket: console, Detach: true,
			})
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return process, nil
}

// KillAll signals the processes in the container's cgroup.
func (i *instance) KillAll(sig unix.Signal) error {
	pids, err := i.cgroup.Pids()
	switch {
	case err != nil:
		return err
	case len(pids) == 0:
		return os.ErrProcessDone
	case sig == unix.SIGKILL:
		return i.cgroup.Kill()
	}
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("signal %d to process %d: %w", sig, pid, err))
		}
	}
	return errors.Join(errs...)
}

func (i *instance) Pause(ctx context.Context) error {
	return i.do(func(c *runc.Runc, _ string) error { return c.Pause(context.WithoutCancel(ctx), i.id) })
}

// Resume thaws the cgroup. That it is not frozen is no error: the container
// may have been killed, and thawed by that, at the same time.
func (i *instance) Resume(ctx context.Context) error {
	err := i.do(func(c *runc.Runc, _ string) error { return c.Resume(context.WithoutCancel(ctx), i.id) })
	if err != nil && i.isThawed(ctx) {
		return nil
	}
	return err
}

// isThawed tells whether the runtime says that the container is not paused.
func (i *instance) isThawed(ctx context.Context) bool {
	thawed := false
	err := i.do(func(c *runc.Runc, _ string) error {
		state, err := c.State(ctx, i.id)
		thawed = err == nil && state.Status != "paused"
		return err
	})
	return err == nil && thawed
}

// Update changes the limits that the runtime's update knows.
func (i *instance) Update(ctx context.Context, r *specs.LinuxResources) error {
	return i.do(func(c *runc.Runc, _ string) error { return c.Update(context.WithoutCancel(ctx), i.id, r) })
}

func (i *instance) Pids() ([]int, error) { return i.cgroup.Pids() }

// Delete has the runtime remove the container, by force: init has exited, and
// of what it has left none is to stay.
func (i *instance) Delete(ctx context.Context) error {
	return i.runtime.delete(context.WithoutCancel(ctx))
}
