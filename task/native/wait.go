package native

import (
	"errors"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// Wait waits through the runtime's poller, which costs no thread, and only
// then lets libcontainer reap the process.
func (c *child) Wait() task.Exit {
	defer c.pidfd.Close()
	if conn, err := c.pidfd.SyscallConn(); err == nil {
		// Should polling fail, the wait below blocks a thread instead.
		_ = conn.Read(func(fd uintptr) bool { return readable(int(fd)) })
	}
	at := time.Now()
	state, err := c.process.Wait()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return task.Exit{Status: statusUnknown, At: at}
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return task.Exit{Status: statusUnknown, At: at}
	}
	return task.ExitOf(unix.WaitStatus(ws), at)
}

// statusUnknown is told of a process whose exit the kernel does not tell,
// as containerd does.
const statusUnknown = 255

// readable tells whether a pidfd's process has exited (pidfd_open(2)).
func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}
