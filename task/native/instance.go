package native

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runc/libcontainer"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// instance is one container. It holds no handle of libcontainer's: see doc.go.
type instance struct {
	root, id string
	init     *child
	updating chan struct{} // holds a token while an update, or Delete, is under way
}

func (i *instance) Init() task.Child { return i.init }

// load makes a handle for one operation.
func (i *instance) load() (*libcontainer.Container, error) {
	return libcontainer.Load(i.root, i.id)
}

// Exec runs a process in the container's namespaces and cgroup.
func (i *instance) Exec(ctx context.Context, p *specs.Process, f task.Files) (task.Child, error) {
	container, err := i.load()
	if err != nil {
		return nil, fmt.Errorf("exec failed: %w", err)
	}
	process, err := processOf(p, f)
	if err != nil {
		return nil, fmt.Errorf("exec failed: %w", err)
	}
	if err := spawn(ctx, func() error { return container.Start(process) }); err != nil {
		return nil, fmt.Errorf("exec failed: %w", err)
	}
	c, err := newChild(process)
	if err != nil {
		_ = process.Signal(os.Kill)
		_, _ = process.Wait()
		return nil, fmt.Errorf("exec failed: %w", err)
	}
	return c, nil
}

func (i *instance) Pause(context.Context) error {
	container, err := i.load()
	if err != nil {
		return err
	}
	return container.Pause()
}

// Resume thaws the cgroup. That it is not frozen is no error: the container
// may have been killed, and thawed by that, at the same time.
func (i *instance) Resume(context.Context) error {
	container, err := i.load()
	if err != nil {
		return err
	}
	if err := container.Resume(); err != nil && !errors.Is(err, libcontainer.ErrNotPaused) {
		return err
	}
	return nil
}

func (i *instance) Pids() ([]int, error) {
	container, err := i.load()
	if err != nil {
		return nil, err
	}
	return container.Processes()
}

// Delete removes the container's cgroups, its intelRdt group and its state
// directory, and runs the poststop hooks. It waits for an update under way,
// which writes to all of these: a directory in which a file is made while it is
// emptied cannot be removed.
func (i *instance) Delete(ctx context.Context) error {
	select {
	case i.updating <- struct{}{}:
		defer func() { <-i.updating }()
	case <-ctx.Done():
		return fmt.Errorf("wait for an update of the container: %w", ctx.Err())
	}
	container, err := i.load()
	if errors.Is(err, libcontainer.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return destroy(ctx, container, stateDir(i.root, i.id))
}

// KillAll signals all processes in the container's cgroup.
func (i *instance) KillAll(sig unix.Signal) error {
	container, err := i.load()
	if errors.Is(err, libcontainer.ErrNotExist) {
		return os.ErrProcessDone
	}
	if err != nil {
		return err
	}
	return killAll(container, sig)
}

func killAll(container *libcontainer.Container, sig unix.Signal) error {
	if sig == unix.SIGKILL {
		// Where init is the first process of a PID namespace, its death is
		// everyone's; elsewhere libcontainer kills by cgroup.
		err := container.Signal(sig)
		if errors.Is(err, libcontainer.ErrNotRunning) {
			return os.ErrProcessDone
		}
		return err
	}
	pids, err := container.Processes()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return os.ErrProcessDone
	}
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("signal %d to process %d: %w", sig, pid, err))
		}
	}
	return errors.Join(errs...)
}
