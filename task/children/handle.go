package children

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Handle is a pidfd. Its methods may be called at any time from several
// goroutines: one that has been closed gives an error, not another file.
type Handle struct {
	pid  int
	file *os.File
}

// Open makes a handle of a child that has not been waited for. It is the
// caller's to close.
func Open(pid int) (*Handle, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	return &Handle{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Pid is the process's id in the shim's PID namespace.
func (h *Handle) Pid() int { return h.pid }

// Close lets go of the process.
func (h *Handle) Close() error { return h.file.Close() }

// Signal sends sig; os.ErrProcessDone if the process has exited or the handle
// is closed.
func (h *Handle) Signal(sig unix.Signal) error {
	var sent error
	if err := h.Control(func(pidfd int) { sent = unix.PidfdSendSignal(pidfd, sig, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(sent, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return sent
}

// Control calls f with the pidfd, which stays open meanwhile;
// os.ErrProcessDone if it is closed.
func (h *Handle) Control(f func(pidfd int)) error {
	conn, err := h.file.SyscallConn()
	if err != nil {
		return os.ErrProcessDone
	}
	if err := conn.Control(func(fd uintptr) { f(int(fd)) }); err != nil {
		return os.ErrProcessDone
	}
	return nil
}

// AwaitExit returns when the process has exited, or when that cannot be told:
// the wait that follows then blocks a thread. It reaps nothing.
func (h *Handle) AwaitExit() {
	// Through the runtime's poller.
	if conn, err := h.file.SyscallConn(); err == nil {
		_ = conn.Read(func(fd uintptr) bool { return readable(int(fd)) })
	}
}

// readable tells whether a pidfd's process has exited (pidfd_open(2)).
func readable(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}

// Reap waits for a child's exit, blocking a thread. Until then its pid is its
// own.
func Reap(pid int) (unix.WaitStatus, error) {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return ws, err
		}
	}
}
