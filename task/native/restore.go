package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// restoring is a container of which there is nothing until it is restored.
type restoring struct {
	*instance
	config       *configs.Config
	stdio        task.Files
	images, work string
}

// Restore prepares a container that Start restores.
func (Engine) Restore(_ context.Context, r task.RestoreRequest) (task.Instance, error) {
	config, err := configOf(r.CreateRequest)
	if err != nil {
		return nil, fmt.Errorf("runc restore failed: %w", err)
	}
	return &restoring{
		instance: &instance{root: r.Root, id: r.ID, updating: make(chan struct{}, 1)},
		config:   config, stdio: r.Stdio, images: r.Images, work: r.Work,
	}, nil
}

// Start has criu restore the container's processes. They are made as siblings
// of criu, so as children of the shim, and of criu's in the container's
// cgroups: what the spec says of CPUs and memory holds, not what held where
// the checkpoint was made.
//
// That what was allowed to be in a checkpoint may be in it is not asked again.
func (r *restoring) Start(ctx context.Context) error {
	container, err := libcontainer.Create(r.root, r.id, r.config)
	if err != nil {
		return fmt.Errorf("runc restore failed: %w", err)
	}
	process := &libcontainer.Process{Init: true, LogLevel: logLevel()}
	setStreams(process, r.stdio)
	err = amongOwnMounts(func() error {
		return spawn(context.WithoutCancel(ctx), func() error { // criu finishes what it has begun
			return container.Restore(process, &libcontainer.CriuOpts{
				ImagesDirectory: r.images, WorkDirectory: r.work, StatusFd: noStatusFD,
				TcpEstablished: true, ExternalUnixConnections: true, FileLocks: true,
			})
		})
	})
	if err != nil {
		return errors.Join(fmt.Errorf("runc restore failed: %w", err), destroy(ctx, container, stateDir(r.root, r.id)))
	}
	if r.init, err = newChild(process); err != nil {
		_ = process.Signal(os.Kill)
		_, _ = process.Wait()
		return errors.Join(fmt.Errorf("runc restore failed: %w", err), destroy(ctx, container, stateDir(r.root, r.id)))
	}
	return nil
}

// amongOwnMounts calls do in a mount namespace of its own, which sees what is
// mounted on the host but not the other way round: libcontainer and criu mount
// the root filesystem, volumes and cgroups while they work, and these mounts
// are gone with them, also if they are killed.
//
// The namespace is a thread's that is never unlocked, so that it ends with the
// goroutine. What it has forked stays the shim's child.
func amongOwnMounts(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			done <- os.NewSyscallError("unshare mount namespace", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
			done <- &os.PathError{Op: "stop propagation from", Path: "/", Err: err}
			return
		}
		done <- do()
	}()
	return <-done
}
