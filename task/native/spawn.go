package native

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task/children"
)

// killAgain is how long a start that is given up may go on with what it forks
// after its processes were killed, such as the next hook.
const killAgain = 50 * time.Millisecond

// spawn runs start, which has libcontainer fork the stages of an init, and
// reaps what it leaves if it fails.
//
// A stage that has failed is libcontainer's to wait for only while all goes
// well; runc itself just exits. Here it would stay a zombie, and a zombie in a
// container's PID namespace keeps the container's init from ever finishing
// its exit (pid_namespaces(7)). The stages are siblings, all of them children
// of the thread that forked the first (CLONE_PARENT in clone(2)). So start
// keeps to one thread, whose children that were not there before are its own.
//
// When ctx ends before, so that nobody waits any more, what has been forked is
// killed, until start returns: a hook may run for ever. Where the children that
// were there before are not known, start is left to itself: they are other
// containers.
func spawn(ctx context.Context, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := unix.Gettid()
	before, listErr := children.AllOf(thread)
	if listErr != nil {
		ctx = context.WithoutCancel(ctx)
	}
	ended, killed := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		for {
			children.Kill(thread, before)
			select {
			case <-ended:
				return
			case <-time.After(killAgain):
			}
		}
	})
	err := start()
	close(ended)
	if !stop() {
		<-killed
		err = errors.Join(err, context.Cause(ctx))
	}
	if err == nil {
		return nil
	}
	after, afterErr := children.AllOf(thread)
	if listErr := errors.Join(listErr, afterErr); listErr != nil {
		return errors.Join(err, fmt.Errorf("look for what it left: %w", listErr))
	}
	for _, pid := range after {
		if !slices.Contains(before, pid) {
			end(pid)
		}
	}
	return err
}

// end ends a child and waits for it.
func end(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	_, _ = children.Reap(pid)
}
