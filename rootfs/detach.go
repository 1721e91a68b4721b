package rootfs

import (
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxStacked bounds how many mounts on top of one another Detach takes
	// away.
	maxStacked = 32
	// unmountAttempts and unmountPause give a process that merely looks at the
	// mount 50 ms to leave it.
	unmountAttempts = 6
	unmountPause    = 10 * time.Millisecond
)

// Detach unmounts what is mounted on target, an absolute path, in the caller's
// mount namespace. Nothing mounted there, or no such path, is success: Detach
// may be repeated. A mount that stays busy, and what is mounted below it, is
// detached lazily (MNT_DETACH). Files are never removed.
func Detach(target string) error {
	if !path.IsAbs(target) || path.Clean(target) == "/" {
		return fmt.Errorf("detach root filesystem from %q: not an absolute path below /: %w", target, ErrInvalid)
	}
	for range maxStacked {
		mounted, err := isMountRoot(target)
		if err != nil {
			return fmt.Errorf("detach root filesystem from %s: statx: %w", target, err)
		}
		if !mounted {
			return nil
		}
		if err := unmount(target); err != nil {
			return fmt.Errorf("detach root filesystem from %s: umount2: %w", target, err)
		}
	}
	return fmt.Errorf("detach root filesystem from %s: still a mount after unmounting %d", target, maxStacked)
}

// isMountRoot asks statx(2) (STATX_ATTR_MOUNT_ROOT, Linux 5.8) without
// talking to the file system that may hang behind the mount.
func isMountRoot(target string) (bool, error) {
	var st unix.Statx_t
	var c calls
	err := c.do(func() error {
		return unix.Statx(unix.AT_FDCWD, target, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, 0, &st)
	})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return false, nil
	case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.EIO), errors.Is(err, unix.ESTALE):
		return true, nil // only a mount whose server is gone answers so
	case err != nil:
		return false, err
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// unmount takes the topmost mount away.
func unmount(target string) error {
	var c calls
	for attempt := range unmountAttempts {
		if attempt > 0 {
			time.Sleep(unmountPause)
		}
		err := c.do(func() error { return unix.Unmount(target, unix.UMOUNT_NOFOLLOW) })
		switch {
		case err == nil, errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil // EINVAL, ENOENT: somebody else was quicker
		case !errors.Is(err, unix.EBUSY):
			return err
		}
	}
	return c.do(func() error { return unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH) })
}
