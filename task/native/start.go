package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// startPoll is how often a start that takes long looks whether it has been
// cancelled.
const startPoll = 100 * time.Millisecond

// errDead is what runc says of an init that died before it was started.
var errDead = errors.New("runc start failed: container process is already dead")

// Start opens the FIFO that init waits on to be opened. Init then writes a
// byte to it, closes it, runs the startContainer hooks and executes the
// container's program. That byte is the last that it tells: should one of the
// hooks or the exec fail, init exits.
func (i *instance) Start(ctx context.Context) error {
	// Once the FIFO is open init goes on: there is no way back.
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("runc start failed: %w", err)
	}
	path := i.execFIFO()
	fifo, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return errors.New("runc start failed: cannot start a container that has stopped or runs already")
	}
	if err != nil {
		return &os.PathError{Op: "open exec FIFO", Path: path, Err: err}
	}
	defer unix.Close(fifo)
	if err := i.awaitByte(ctx, fifo); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("runc start failed: %w", err)
	}
	return nil
}

// awaitByte reads init's byte, or learns that init is dead.
func (i *instance) awaitByte(ctx context.Context, fifo int) error {
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("runc start failed: %w", err)
		}
		var dead bool
		err := i.init.Control(func(pidfd int) {
			fds := []unix.PollFd{
				{Fd: int32(fifo), Events: unix.POLLIN},
				{Fd: int32(pidfd), Events: unix.POLLIN},
			}
			_, _ = unix.Poll(fds, int(startPoll.Milliseconds()))
			dead = fds[1].Revents != 0
		})
		// A short-lived program may have run and ended by now: its byte
		// counts more than its death.
		n, readErr := unix.Read(fifo, make([]byte, 1))
		switch {
		case n == 1:
			return nil
		case err != nil || dead:
			return errDead
		case readErr != nil && !errors.Is(readErr, unix.EAGAIN) && !errors.Is(readErr, unix.EINTR):
			return os.NewSyscallError("read exec FIFO", readErr)
		}
	}
}
