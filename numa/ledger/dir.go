package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa/private"
)

const (
	dirMode  = 0o700
	fileMode = 0o600

	stateFile    = "state"
	rootsFile    = "roots"
	badFile      = "state.bad"
	tempSuffix   = ".tmp"
	lockRetryMin = 100 * time.Microsecond
	lockRetryMax = 16 * time.Millisecond
	// progressFactor is how many times the patience is spent at most behind
	// others that get on with their work.
	progressFactor = 8
)

// directory is the ledger's directory, open. Everything in it is reached
// through its descriptor, so that it is that whose owner was checked.
type directory struct {
	fd   int
	path string
}

// openDir opens a directory that nobody but its owner, the effective user,
// can use; it makes it if it is to be there.
func openDir(path string, create bool) (directory, error) {
	if create {
		if err := os.Mkdir(path, dirMode); err != nil && !errors.Is(err, os.ErrExist) {
			return directory{}, fmt.Errorf("make ledger directory: %w", err)
		}
	}
	fd, err := private.OpenDir(path)
	if err != nil {
		return directory{}, fmt.Errorf("the ledger: %w", err)
	}
	return directory{fd: fd, path: path}, nil
}

func (d directory) close() { unix.Close(d.fd) }

// lock locks the ledger against all other changes. The lock is flock(2) on the
// directory: there is no lock file that somebody could remove under a holder,
// and the kernel drops it when the holder dies.
//
// A holder needs milliseconds. So one that has not changed the ledger for all
// of patience is stopped or stuck; behind a queue that moves the wait may be
// longer.
func (d directory) lock(ctx context.Context, patience time.Duration) (unlock func(), err error) {
	begun := time.Now()
	w := waiting{patience: patience, begun: begun, last: begun, seen: d.mark()}
	for wait := lockRetryMin; ; wait = min(2*wait, lockRetryMax) {
		switch err := unix.Flock(d.fd, unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			// Unlocked rather than left to be closed: a child that is being
			// forked now holds the same open file until it executes.
			return func() { _ = unix.Flock(d.fd, unix.LOCK_UN) }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, fmt.Errorf("lock ledger %s: %w", d.path, err)
		}
		if w.enough(time.Now(), d.mark()) {
			return nil, fmt.Errorf("lock ledger %s: waited %v: %w", d.path, time.Since(begun).Round(time.Millisecond), ErrBusy)
		}
		// Random, so that waiters that came together do not meet again.
		select {
		case <-time.After(wait/2 + rand.N(wait)):
		case <-ctx.Done():
			return nil, fmt.Errorf("lock ledger %s: %w", d.path, context.Cause(ctx))
		}
	}
}

// waiting is a wait for the lock that began, and last saw a change of the
// ledger, at some time.
type waiting struct {
	patience    time.Duration
	begun, last time.Time
	seen        version
}

// enough tells whether to give up now that the ledger is of a version.
func (w *waiting) enough(now time.Time, v version) bool {
	if v != w.seen {
		w.last, w.seen = now, v
	}
	return now.Sub(w.last) >= w.patience || now.Sub(w.begun) >= progressFactor*w.patience
}

// version tells one state file from the next.
type version struct {
	inode uint64
	mtime unix.Timespec
	size  int64
}

// mark is the version of the state file that is there now.
func (d directory) mark() version {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, stateFile, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return version{}
	}
	return version{st.Ino, st.Mtim, st.Size}
}

// read reads a file of the directory whole. What is no regular file of at most
// limit bytes is a defect; that there is none is fs.ErrNotExist.
func (d directory) read(name string, limit int64) ([]byte, error) {
	return readAt(d.fd, name, d.path+"/"+name, limit)
}

// readAt is read in any directory; path is for the errors.
func readAt(dirfd int, name, path string, limit int64) ([]byte, error) {
	// O_NONBLOCK: the opening of a FIFO would wait for a writer.
	fd, err := retried(func() (int, error) {
		return unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO):
		return nil, defect("%s is no file: %v", path, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("look at %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > limit {
		return nil, defect("%s has mode %#o and %d bytes, should be a file of at most %d", path, st.Mode, st.Size, limit)
	}
	text := make([]byte, st.Size)
	for n := 0; n < len(text); {
		m, err := retried(func() (int, error) { return unix.Read(fd, text[n:]) })
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if m == 0 {
			return nil, defect("%s became shorter while it was read", path)
		}
		n += m
	}
	return text, nil
}

// write replaces a file of the directory at once, or leaves it as it was.
// Nothing is synced to a disk: what is in the file is of no use after a crash
// of the machine.
func (d directory) write(name string, text []byte, step func(string)) error {
	path, temp := d.path+"/"+name, name+tempSuffix
	// Left by a writer that died. It cannot be another's: we hold the lock.
	if err := d.remove(temp); err != nil {
		return err
	}
	fd, err := retried(func() (int, error) {
		return unix.Openat(d.fd, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, fileMode)
	})
	if err != nil {
		return fmt.Errorf("make %s%s: %w", path, tempSuffix, err)
	}
	step("made " + temp)
	err = writeAll(fd, text)
	if closed := unix.Close(fd); err == nil {
		err = closed
	}
	step("wrote " + temp)
	if err == nil {
		err = unix.Renameat(d.fd, temp, d.fd, name)
	}
	if err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0)
		return fmt.Errorf("write %s: %w", path, err)
	}
	step("renamed " + temp)
	return nil
}

func writeAll(fd int, text []byte) error {
	for len(text) > 0 {
		n, err := retried(func() (int, error) { return unix.Write(fd, text) })
		if err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

// sideline moves a state file that is of no use out of the way. The last such
// is kept for whoever wants to know what happened.
func (d directory) sideline() error {
	err := unix.Renameat(d.fd, stateFile, d.fd, badFile)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		// One of the two is a directory.
		if err := d.remove(badFile); err != nil {
			return err
		}
		err = unix.Renameat(d.fd, stateFile, d.fd, badFile)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("move %s/%s away: %w", d.path, stateFile, err)
	}
	return nil
}

// remove removes a file or an empty directory, if there is one.
func (d directory) remove(name string) error {
	err := unix.Unlinkat(d.fd, name, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s/%s: %w", d.path, name, err)
	}
	return nil
}

// retried calls until no signal interrupts: Go's runtime sends some to itself.
func retried(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
