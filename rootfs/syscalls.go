package rootfs

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// resolveLayer keeps a layer's name below its parent directory, on
	// whatever mount, and free of symbolic links (openat2(2), Linux 5.6).
	resolveLayer = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	// resolveTarget resolves a path as the container would.
	resolveTarget = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	// resolveAttempts bounds how often openat2 is repeated when it could not
	// rule out a rename of a parent (EAGAIN).
	resolveAttempts = 64
	// contextLogSize holds a message of a file system context (fsopen(2)).
	contextLogSize = 1024
)

// calls issues the system calls of one assembly. It restarts those that a
// signal interrupted and counts all of them. Every descriptor it returns is
// close-on-exec.
type calls struct{ n int }

func (c *calls) do(call func() error) error {
	for {
		c.n++
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (c *calls) open(dir int, path string, flags int, resolve uint64) (fd int, err error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	for range resolveAttempts {
		c.n++
		fd, err = unix.Openat2(dir, path, &how)
		if err == nil || err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	return fd, err
}

// openDir opens a directory for reference only.
func (c *calls) openDir(dir int, path string, resolve uint64) (int, error) {
	return c.open(dir, path, unix.O_PATH|unix.O_DIRECTORY, resolve)
}

// close gives a descriptor back. Its errors say nothing about O_PATH, mount
// and context descriptors, and it must not be restarted (close(2)).
func (c *calls) close(fd int) {
	c.n++
	_ = unix.Close(fd)
}

// mountID tells the mounts of this namespace apart (statx(2), Linux 5.8). A
// symbolic link at the end of path is not followed.
func (c *calls) mountID(dir int, path string) (uint64, error) {
	var st unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	err := c.do(func() error { return unix.Statx(dir, path, flags, unix.STATX_MNT_ID, &st) })
	return st.Mnt_id, err
}

func (c *calls) fsopen(fstype string) (fd int, err error) {
	err = c.do(func() error {
		fd, err = unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
		return err
	})
	return fd, err
}

func (c *calls) setString(fs int, key, value string) error {
	return c.do(func() error { return unix.FsconfigSetString(fs, key, value) })
}

func (c *calls) setFlag(fs int, key string) error {
	return c.do(func() error { return unix.FsconfigSetFlag(fs, key) })
}

func (c *calls) setFD(fs int, key string, fd int) error {
	return c.do(func() error { return unix.FsconfigSetFd(fs, key, fd) })
}

func (c *calls) create(fs int) error {
	return c.do(func() error { return unix.FsconfigCreate(fs) })
}

func (c *calls) fsmount(fs int, attrs uint64) (fd int, err error) {
	err = c.do(func() error {
		fd, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attrs))
		return err
	})
	return fd, err
}

// contextLog reads what the file system context said; "" when nothing.
func (c *calls) contextLog(fs int) string {
	var lines []string
	var buf [contextLogSize]byte
	for {
		var n int
		err := c.do(func() (err error) {
			n, err = unix.Read(fs, buf[:])
			return err
		})
		if err != nil || n <= 0 { // ENODATA: no more messages
			return strings.Join(lines, "; ")
		}
		lines = append(lines, string(bytes.TrimSpace(buf[:n])))
	}
}

// openTree clones the mount of path as a detached mount.
func (c *calls) openTree(dir int, path string, flags int) (fd int, err error) {
	flags |= unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	err = c.do(func() error {
		fd, err = unix.OpenTree(dir, path, uint(flags))
		return err
	})
	return fd, err
}

func (c *calls) setattr(fd, flags int, attr *unix.MountAttr) error {
	return c.do(func() error { return unix.MountSetattr(fd, "", uint(flags|unix.AT_EMPTY_PATH), attr) })
}

// moveOnto attaches the detached mount fd on the file that target refers to.
func (c *calls) moveOnto(fd, target int) error {
	return c.do(func() error {
		return unix.MoveMount(fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	})
}

// readOnly reports whether the mount or its superblock refuses writes.
func (c *calls) readOnly(fd int) (bool, error) {
	var st unix.Statfs_t
	err := c.do(func() error { return unix.Fstatfs(fd, &st) })
	return st.Flags&unix.ST_RDONLY != 0, err
}
