package private

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// forOthers are the permission bits of group and others.
	forOthers = 0o077
	// permissions are the bits of a mode that are not the file type.
	permissions = 0o7777
)

// OpenDir opens a directory that belongs to the effective user and that nobody
// else has access to; the error wraps EPERM if that is not so, and ENOTDIR if
// path is something else, such as a symbolic link. The descriptor is the
// caller's to close.
func OpenDir(path string) (fd int, err error) {
	if fd, err = open(path); err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	if err := check(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("directory %s %w", path, err)
	}
	return fd, nil
}

func open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func check(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot be looked at: %w", err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("belongs to user %d, not %d: %w", st.Uid, os.Geteuid(), unix.EPERM)
	}
	if st.Mode&forOthers != 0 {
		return fmt.Errorf("has mode %#o, others must have no access: %w", st.Mode&permissions, unix.EPERM)
	}
	return nil
}
