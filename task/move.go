package task

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// moveSize is how much is copied at once, in bytes: half of what a pipe
// holds (pipe(7)), so that reader and writer can both be at work.
const moveSize = 32 << 10

var moveBuffers = sync.Pool{New: func() any { b := make([]byte, moveSize); return &b }}

// move copies from src to dst until src ends. A stream on which nothing moves
// holds no buffer: a shim may have hundreds. The count of what has been moved
// goes to moved unless that is nil.
//
// What cannot be written goes to lost, which says whether to go on.
func move(dst, src *os.File, moved *atomic.Int64, lost func(error) bool) error {
	conn, err := src.SyscallConn()
	if err != nil {
		return err
	}
	for {
		buf, n, err := readReady(conn.Read)
		if n > 0 {
			n, err = dst.Write((*buf)[:n])
			if moved != nil {
				moved.Add(int64(n))
			}
			if err != nil && lost(err) {
				err = nil
			}
		}
		if buf != nil {
			moveBuffers.Put(buf)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, unix.EIO):
			// A terminal reads EIO when its last user has closed it.
			return nil
		case err != nil:
			return err
		}
	}
}

// readReady waits until there is something to read and reads it. The buffer
// is the caller's to give back, unless it is nil.
func readReady(read func(func(fd uintptr) bool) error) (buf *[]byte, n int, err error) {
	waitErr := read(func(fd uintptr) bool {
		b, ok := moveBuffers.Get().(*[]byte)
		if !ok {
			return true
		}
		for {
			n, err = unix.Read(int(fd), *b)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if errors.Is(err, unix.EAGAIN) {
			moveBuffers.Put(b)
			return false
		}
		buf = b
		return true
	})
	switch {
	case waitErr != nil:
		return buf, 0, waitErr
	case err != nil:
		return buf, 0, err
	case n == 0:
		return buf, 0, io.EOF
	}
	return buf, n, nil
}

// receiveBudget bounds the wait for the terminal. It has been sent before the
// process is known to exist.
const receiveBudget = 10 * time.Second

// receiveFile receives one file over a unix(7) socket (SCM_RIGHTS).
func receiveFile(socket *os.File) (*os.File, error) {
	timeout := unix.NsecToTimeval(receiveBudget.Nanoseconds())
	fd := int(socket.Fd())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	name, control := make([]byte, unix.PathMax), make([]byte, unix.CmsgSpace(4))
	var n, oob int
	var err error
	for {
		n, oob, _, _, err = unix.Recvmsg(fd, name, control, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:oob])
	if err != nil {
		return nil, os.NewSyscallError("control message", err)
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages where one file was expected", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, os.NewSyscallError("control message", err)
	}
	if len(fds) != 1 {
		closeFDs(fds)
		return nil, fmt.Errorf("%d files where one was expected", len(fds))
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		closeFDs(fds)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), string(name[:n])), nil
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
