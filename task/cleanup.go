package task

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/log"

	"containerd-shim-numa-v1/rootfs"
	"containerd-shim-numa-v1/task/placement"
)

// Remover removes what an engine has left of a container whose shim is gone.
type Remover interface {
	// Remove kills what runs of the container and removes its cgroups and
	// state. It is quick if there is nothing, idempotent, and touches no
	// other container.
	Remove(ctx context.Context, root, id, bundle string) error
}

// criuRoot is the directory in runc's state of a container on which its root
// filesystem is mounted once more while criu restores it. Should shim or
// runtime be killed then, it stays, and to remove the state would be to remove
// what is in the root filesystem.
const criuRoot = "criu-root"

// What has to be done after the removal of a container, or instead of it, takes
// no more than this, unless somebody else holds the ledger's lock.
const afterRemoval = 250 * time.Millisecond

// Cleanup removes what is left of a container whose shim is gone and tells
// how its init ended: as the shim has noted it, or killed, now. The pid is 0
// if the bundle does not tell it.
//
// containerd asks for it after every Delete as well, when all is gone.
func Cleanup(ctx context.Context, e Remover, namespace, id, bundle string) (pid int, exit Exit, err error) {
	root := stateRoot(namespace, bundle)
	if err := rootfs.Detach(filepath.Join(root, id, criuRoot)); err != nil {
		return 0, Exit{}, err
	}
	removed := removeInTime(ctx, func(ctx context.Context) error { return e.Remove(ctx, root, id, bundle) })
	detached := rootfs.Detach(filepath.Join(bundle, rootfsDir))
	if err := errors.Join(removed, detached); err != nil {
		return 0, Exit{}, err
	}
	if err := placement.Release(ctx, bundle); err != nil {
		log.G(ctx).WithError(err).Warn("its place is not free before others look for the dead")
	}
	pid, exit, ok, err := readExit(bundle)
	if err != nil {
		log.G(ctx).WithError(err).Warn("the exit status is unknown")
	}
	if !ok {
		pid, exit = readInitPid(bundle), Exit{Status: signalStatusBase + uint32(sigKill), At: time.Now()}
	}
	return pid, exit, nil
}

// removeInTime removes and leaves time for what comes after. A removal that
// heeds its context has a little more to say why it failed; one that does not,
// because a call of the engine or a hook hangs, goes on by itself: it ends with
// the process, which is the delete command's.
func removeInTime(ctx context.Context, remove func(context.Context) error) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		return remove(ctx)
	}
	heeded, cancel := context.WithDeadline(ctx, deadline.Add(-2*afterRemoval))
	defer cancel()
	patience, done := context.WithDeadline(ctx, deadline.Add(-afterRemoval))
	defer done()
	removed := make(chan error, 1)
	go func() { removed <- remove(heeded) }()
	select {
	case err := <-removed:
		return err
	case <-patience.Done():
		return fmt.Errorf("remove the container: it hangs: %w", patience.Err())
	}
}
