package rootfs

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Directories of the private mount namespace.
const (
	layersDir = "/l" // the clone of the layers' common parent
	upperDir  = "/u" // a clone of the directory above upper and work directory
	rootDir   = "/r" // the mount that is being made
)

// Workshop is a small mount namespace that nobody else sees, for kernels on
// which an overlay's layers must be attached somewhere: a tmpfs and nothing
// else. It is made when first needed, which copies the mount table once, and
// takes effort in proportion to it. Each assembly works in a copy of its own
// (of one mount), which ends with it together with all that was attached
// there. A Workshop also remembers which tiers the kernel lacks. The zero
// value is ready for use, by any number of goroutines.
type Workshop struct {
	mu     sync.Mutex
	lack   [Host]bool // by Tier
	ns     *os.File
	making chan struct{} // closed when the namespace under way is made
	closed bool
}

func (w *Workshop) lacks(t Tier) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lack[t]
}

func (w *Workshop) remember(t Tier) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lack[t] = true
}

// Close gives the namespace back. The Workshop cannot be used afterwards.
func (w *Workshop) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.ns == nil {
		return nil
	}
	err := w.ns.Close()
	w.ns = nil
	return err
}

var errWorkshopClosed = errors.New("workshop is closed")

// namespace gives a descriptor of the namespace, which the caller closes.
func (w *Workshop) namespace(c *calls) (*os.File, error) {
	for {
		w.mu.Lock()
		switch {
		case w.closed:
			w.mu.Unlock()
			return nil, errWorkshopClosed
		case w.ns != nil:
			ns, err := duplicate(w.ns)
			w.mu.Unlock()
			return ns, err
		case w.making != nil:
			making := w.making
			w.mu.Unlock()
			<-making
			continue
		}
		made := make(chan struct{})
		w.making = made
		w.mu.Unlock()

		ns, err := c.newMountNS()
		w.mu.Lock()
		w.making = nil
		if err == nil && !w.closed {
			w.ns = ns
		}
		w.mu.Unlock()
		close(made)
		if err != nil {
			return nil, fmt.Errorf("make a private mount namespace: %w", err)
		}
	}
}

// inside runs do on a thread in a copy of the namespace: changes of its mount
// table concern nobody, and go away with the thread.
func (w *Workshop) inside(c *calls, do func() error) error {
	ns, err := w.namespace(c)
	if err != nil {
		return err
	}
	defer ns.Close()
	return onOwnThread(func() error {
		return inOrder(
			func() error { return c.do(func() error { return unix.Unshare(unix.CLONE_FS) }) },
			func() error { return c.do(func() error { return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS) }) },
			func() error { return c.do(func() error { return unix.Unshare(unix.CLONE_NEWNS) }) },
			do)
	})
}

// inOrder runs steps until one fails.
func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// newMountNS makes a mount namespace that consists of a tmpfs.
func (c *calls) newMountNS() (*os.File, error) {
	ns, root := -1, -1
	err := onOwnThread(func() error {
		return inOrder(
			func() error { return c.do(func() error { return unix.Unshare(unix.CLONE_NEWNS) }) },
			func() (err error) {
				// The thread's: the main one is still in the old namespace.
				ns, err = c.open(unix.AT_FDCWD, "/proc/thread-self/ns/mnt", unix.O_RDONLY, 0)
				return err
			},
			func() error {
				return c.do(func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") })
			},
			func() (err error) {
				root, err = c.newTmpfs()
				return err
			},
			func() error { return c.enterRoot(root) })
	})
	if root >= 0 {
		c.close(root)
	}
	if err != nil {
		if ns >= 0 {
			c.close(ns)
		}
		return nil, err
	}
	return os.NewFile(uintptr(ns), "private mount namespace"), nil
}

// newTmpfs makes a detached tmpfs with the directories of the namespace.
func (c *calls) newTmpfs() (mount int, err error) {
	fs, err := c.fsopen("tmpfs")
	if err != nil {
		return -1, err
	}
	defer c.close(fs)
	err = inOrder(
		func() error { return c.setString(fs, "mode", "0700") },
		func() error { return c.create(fs) },
		func() error {
			mount, err = c.fsmount(fs, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
			return err
		})
	if err != nil {
		return -1, err
	}
	for _, dir := range []string{layersDir, upperDir, rootDir} {
		if err := c.do(func() error { return unix.Mkdirat(mount, dir[1:], 0o700) }); err != nil {
			c.close(mount)
			return -1, err
		}
	}
	return mount, nil
}

// enterRoot makes the mount fd the root of the thread's mount namespace, and
// takes all other mounts away. A kernel that runs from its initramfs cannot
// part with its root (pivot_root(2)): there, the mount hides it. The mount is
// first attached to /proc, a directory that any namespace has.
func (c *calls) enterRoot(fd int) error {
	err := inOrder(
		func() error {
			return c.do(func() error {
				return unix.MoveMount(fd, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
			})
		},
		func() error { return c.do(func() error { return unix.Fchdir(fd) }) },
		func() error { return c.do(func() error { return unix.PivotRoot(".", ".") }) })
	switch {
	case err == nil:
		return c.do(func() error { return unix.Unmount(".", unix.MNT_DETACH) })
	case errors.Is(err, unix.EINVAL):
		return inOrder(
			func() error { return c.do(func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") }) },
			func() error { return c.do(func() error { return unix.Chroot(".") }) })
	}
	return err
}
