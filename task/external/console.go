package external

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// terminalBudget bounds the wait for a terminal once the runtime has said
// that all went well: it sends it before that.
const terminalBudget = 10 * time.Second

// console passes the terminal on that a runtime sends to a socket by its path
// (runc, docs/terminals.md) to a socket that is connected.
type console struct {
	dir      *os.File
	listener *net.UnixListener
	passed   chan error
}

// newConsole listens in the directory dir. The path that it tells the runtime
// leads there through a descriptor, as a bundle's own may be longer than a
// socket's address (unix(7): 107 bytes).
func newConsole(dir string, to *os.File) (*console, error) {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	c := &console{dir: d, passed: make(chan error, 1)}
	c.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: c.Path(), Net: "unix"})
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("console socket: %w", err)
	}
	go func() { c.passed <- c.pass(to) }()
	return c, nil
}

// Path is where the runtime finds the socket.
func (c *console) Path() string {
	return filepath.Join("/proc", fmt.Sprint(os.Getpid()), "fd", fmt.Sprint(c.dir.Fd()), "console.sock")
}

// finish waits for the terminal if the runtime's command succeeded, and lets
// go of the socket.
func (c *console) finish(failed error) error {
	defer c.dir.Close()
	defer c.listener.Close()
	if failed != nil {
		c.listener.Close()
		<-c.passed
		return failed
	}
	if err := c.listener.SetDeadline(time.Now().Add(terminalBudget)); err != nil {
		return fmt.Errorf("receive the terminal: %w", err)
	}
	if err := <-c.passed; err != nil {
		return fmt.Errorf("receive the terminal: %w", err)
	}
	return nil
}

// pass accepts one connection and sends the one file on that comes over it.
func (c *console) pass(to *os.File) error {
	conn, err := c.listener.AcceptUnix()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(terminalBudget)); err != nil {
		return err
	}
	name, control := make([]byte, unix.PathMax), make([]byte, unix.CmsgSpace(4))
	n, oob, _, _, err := conn.ReadMsgUnix(name, control)
	if err != nil {
		return err
	}
	fds, err := filesIn(control[:oob])
	if err != nil {
		return err
	}
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	if len(fds) != 1 {
		return fmt.Errorf("%d files where one terminal was expected", len(fds))
	}
	// A stream socket carries no message without a byte.
	if err := unix.Sendmsg(int(to.Fd()), name[:max(n, 1)], unix.UnixRights(fds[0]), nil, 0); err != nil {
		return os.NewSyscallError("sendmsg", err)
	}
	return nil
}

// filesIn are the descriptors in a control message; Go receives them
// close-on-exec.
func filesIn(control []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, os.NewSyscallError("control message", err)
	}
	if len(messages) == 0 {
		return nil, errors.New("no file")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, os.NewSyscallError("control message", err)
	}
	return fds, nil
}
