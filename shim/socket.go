package shim

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	unixScheme = "unix://"

	// defaultSocketDir holds the sockets of all shims where containerd names
	// no other directory. containerd has it compiled in.
	defaultSocketDir  = "/run/containerd/s"
	socketDirMode     = 0o700
	socketMode        = 0o600
	socketBacklog     = 4096 // the kernel takes the minimum with net.core.somaxconn
	debugSocketSuffix = "debug"

	// socketPathLimit is the longest path of a socket that containerd dials,
	// in bytes; unix(7) has 107.
	socketPathLimit = 106

	// lockPatience bounds the wait for the lock on the socket directory. It is
	// held for microseconds, so a longer wait is somebody's malice or a bug.
	lockPatience = 3 * time.Second
	lockRetryMin = 200 * time.Microsecond
	lockRetryMax = 10 * time.Millisecond
)

// errInUse tells that a live daemon listens on the socket.
var errInUse = errors.New("a daemon listens there")

// socketPath returns where the daemon of a group listens. containerd's own
// tests, and other tools, compute the same.
func socketPath(dir, address, namespace, group string, debug bool) (string, error) {
	name := filepath.Join(address, namespace, group)
	if debug {
		name = filepath.Join(name, debugSocketSuffix)
	}
	path := fmt.Sprintf("%s/%x", dir, sha256.Sum256([]byte(name)))
	if len(path) > socketPathLimit {
		return "", fmt.Errorf("socket path %s has %d bytes, the limit is %d: use a shorter socket_dir than %s",
			path, len(path), socketPathLimit, dir)
	}
	return path, nil
}

// claim makes the listening socket of a group. If a live daemon listens
// there, the error is [errInUse]; a socket that nobody listens on is replaced.
func claim(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, socketDirMode); err != nil {
		return nil, fmt.Errorf("make socket directory %s: %w", dir, err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()

	listener, err := listen(path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return listener, err
	}
	switch answer, err := dial(path); {
	case err != nil:
		return nil, err
	case answer == listening:
		return nil, fmt.Errorf("listen on %s: %w", path, errInUse)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket that a dead daemon left: %w", err)
	}
	return listen(path)
}

// listen binds a socket and listens. Whoever sees the socket refuse
// connections under the directory's lock knows that it is not between the
// two.
func listen(path string) (_ *os.File, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket for %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	// bind(2) gives the file the mode of the socket's inode, less the umask,
	// so there is no moment at which others may connect.
	if err := unix.Fchmod(fd, socketMode); err != nil {
		return nil, fmt.Errorf("set mode of socket for %s: %w", path, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("bind %s: %w", path, err)
	}
	if err := unix.Listen(fd, socketBacklog); err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// liveness is what a socket's path tells when it is dialled.
type liveness int

const (
	absent    liveness = iota // no such file
	refusing                  // a file, but nobody listens
	listening                 // somebody listens, even if too busy to accept
)

// dial finds out whether somebody listens on a socket. It never blocks.
func dial(path string) (liveness, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return absent, fmt.Errorf("make socket to dial %s: %w", path, err)
	}
	defer unix.Close(fd)
	for {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		switch {
		case err == nil, errors.Is(err, unix.EAGAIN): // EAGAIN: its backlog is full
			return listening, nil
		case errors.Is(err, unix.ECONNREFUSED):
			return refusing, nil
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			return absent, nil
		case !errors.Is(err, unix.EINTR):
			return absent, fmt.Errorf("dial %s: %w", path, err)
		}
	}
}

// removeRefusing removes a socket if it refuses connections.
func removeRefusing(path string) error {
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	answer, err := dial(path)
	if err != nil || answer != refusing {
		return err
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the socket that a dead daemon left: %w", err)
	}
	return nil
}

// lockDir locks a socket directory against everybody else who locks it. The
// lock is flock(2) on the directory itself, so that no file is left; the
// directory's mode keeps others from opening it.
func lockDir(dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket directory %s: %w", dir, err)
	}
	deadline := time.Now().Add(lockPatience)
	for wait := lockRetryMin; ; wait = min(2*wait, lockRetryMax) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// Unlocked rather than only closed: a child being forked now
			// holds the same open file until it executes.
			return func() {
				_ = unix.Flock(fd, unix.LOCK_UN)
				unix.Close(fd)
			}, nil
		}
		retry := errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR)
		if !retry || time.Now().After(deadline) {
			unix.Close(fd)
			return nil, fmt.Errorf("lock socket directory %s: %w", dir, err)
		}
		time.Sleep(wait)
	}
}
