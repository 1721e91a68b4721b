package external

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// child is a process of a container that the shim has adopted.
type child struct {
	adopter *adopter
	pid     int
	pidfd   *os.File
	exit    *task.Exit // of one that was reaped before it was known; no pidfd
}

// adopt takes over the process, born in b, whose pid the runtime has written
// to pidFile.
func (a *adopter) adopt(b *birth, pidFile string) (*child, error) {
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, fmt.Errorf("the runtime has told no pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return nil, fmt.Errorf("the runtime has told the pid %q", data)
	}
	exit := a.claim(b, pid)
	if exit != nil {
		return &child{adopter: a, pid: pid, exit: exit}, nil
	}
	// As long as it has not been waited for, its pid is its own.
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		a.release(pid)
		return nil, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	return &child{adopter: a, pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

func (c *child) Pid() int { return c.pid }

// Signal is safe against the process's exit and against Wait at any time: a
// pidfd that is closed gives an error, not another file.
func (c *child) Signal(sig unix.Signal) error {
	if c.exit != nil {
		return os.ErrProcessDone
	}
	conn, err := c.pidfd.SyscallConn()
	if err != nil {
		return os.ErrProcessDone
	}
	var sent error
	if err := conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return os.ErrProcessDone
	}
	if errors.Is(sent, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return sent
}

// statusUnknown is told of a process whose exit the kernel does not tell, as
// containerd does: one that is not the shim's child after all.
const statusUnknown = 255

// Wait waits through the Go runtime's poller, which costs no thread, and then
// reaps the process.
func (c *child) Wait() task.Exit {
	if c.exit != nil {
		return *c.exit
	}
	defer c.adopter.release(c.pid)
	defer c.pidfd.Close()
	if conn, err := c.pidfd.SyscallConn(); err == nil {
		// Should polling fail, the wait below blocks a thread instead.
		_ = conn.Read(func(fd uintptr) bool { return hasExited(int(fd)) })
	}
	at := time.Now()
	var ws unix.WaitStatus
	for {
		// Its pid is its own: nobody else reaps it.
		_, err := unix.Wait4(c.pid, &ws, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return task.Exit{Status: statusUnknown, At: at}
		default:
			return task.ExitOf(ws, at)
		}
	}
}

// hasExited tells whether a pidfd's process has exited (pidfd_open(2)).
func hasExited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}
