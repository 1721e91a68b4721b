package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	// inheritedMount and inheritedTarget are the descriptors that a process
	// finds its ExtraFiles at: libcontainer passes them on before its own.
	inheritedMount  = 3
	inheritedTarget = 4

	// targetMagic opens the memfd that carries the target's path. It is what
	// tells a handover from any other descriptor with that number.
	targetMagic = "containerd-shim-numa-v1 rootfs\x00\x01"
	// targetSeals make the memfd's content unchangeable for good.
	targetSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	// maxPath is PATH_MAX without the NUL.
	maxPath = unix.PathMax - 1
)

// Handover gives the files that a container's init must inherit as its
// descriptors 3 and 4 for [AttachInherited] to attach the tree to the
// directory target, an absolute path as seen there: the mount, and a sealed
// memfd with the path. Both belong to the tree; once the child has been
// started, close the tree. A second call replaces the memfd of the first. The
// mount then lives as long as the container's mount namespace.
func (t *Tree) Handover(target string) ([]*os.File, error) {
	if t.file == nil {
		return nil, fmt.Errorf("hand over root filesystem for %s: %w", target, errNoTree)
	}
	if !path.IsAbs(target) || path.Clean(target) != target || target == "/" || len(target) > maxPath {
		return nil, fmt.Errorf("hand over root filesystem for %q: not a clean absolute path below /: %w", target, ErrInvalid)
	}
	if t.target != nil {
		_ = t.target.Close()
		t.target = nil
	}
	memfd, err := sealedFile("rootfs target", targetMagic+target)
	if err != nil {
		return nil, fmt.Errorf("hand over root filesystem for %s: %w", target, err)
	}
	t.target = memfd
	return []*os.File{t.file, t.target}, nil
}

// sealedFile makes a memfd with a content that nobody can change.
func sealedFile(name, content string) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // MFD_NOEXEC_SEAL is of Linux 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:"+name)
	if _, err := f.WriteString(content); err != nil {
		_ = f.Close()
		return nil, err
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, targetSeals)
	runtime.KeepAlive(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("seal memfd: %w", err)
	}
	return f, nil
}

// AttachInherited attaches the tree of a [Tree.Handover] if this process was
// given one, and does nothing if it was not. A container's init calls it in
// its own mount namespace before anything else, in particular before
// libcontainer changes propagation or pivots.
//
// Only the mount that holds the target is made a slave of its peers on the
// host, so that the tree does not propagate there. Not private: volumes that
// lie on the same mount are to see what the host mounts in them later. The
// propagation of all other mounts stays as it is, since libcontainer may be
// asked to keep volumes shared. Descriptors 3
// and 4 are closed on the next exec from then on, whatever happened; until
// then they refer to /dev/null, so that nothing else gets these numbers, which
// libcontainer leaves open for the container's process.
func AttachInherited() error {
	target, ok := inheritedPath()
	if !ok {
		return nil
	}
	if err := errors.Join(attachUnshared(inheritedMount, target), discardInherited()); err != nil {
		return fmt.Errorf("attach inherited root filesystem to %s: %w", target, err)
	}
	return nil
}

// inheritedPath reads the target's path. Descriptors that are absent, no
// memfd, not sealed, or of other content are somebody else's.
func inheritedPath() (string, bool) {
	seals, err := unix.FcntlInt(inheritedTarget, unix.F_GET_SEALS, 0)
	if err != nil || seals&targetSeals != targetSeals {
		return "", false
	}
	var buf [len(targetMagic) + maxPath]byte
	var n int
	var c calls
	err = c.do(func() (err error) {
		n, err = unix.Pread(inheritedTarget, buf[:], 0)
		return err
	})
	if err != nil || n <= len(targetMagic) || string(buf[:len(targetMagic)]) != targetMagic {
		return "", false
	}
	return string(buf[len(targetMagic):n]), true
}

// attachUnshared attaches the detached mount fd to target, after making the
// mount that target lies on a slave.
func attachUnshared(fd int, target string) error {
	var c calls
	dir, err := c.openDir(unix.AT_FDCWD, target, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer c.close(dir)
	if err := c.makeSlave(dir); err != nil {
		return fmt.Errorf("make the mount below it a slave: %w", err)
	}
	if err := c.moveOnto(fd, dir); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// makeSlave makes the mount that dir lies on a slave (mount_namespaces(7)); a
// private mount stays one. Only a mount's root can be named for that (EINVAL
// otherwise), so it climbs until there. It climbs by descriptors, since the
// parents of a path with symbolic links are not those of the directory.
func (c *calls) makeSlave(dir int) error {
	slave := unix.MountAttr{Propagation: unix.MS_SLAVE}
	at := dir
	defer func() {
		if at != dir {
			c.close(at)
		}
	}()
	for {
		err := c.setattr(at, 0, &slave)
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
		parent, openErr := c.openDir(at, "..", 0)
		if openErr != nil {
			return openErr
		}
		var here, there unix.Stat_t
		statErr := errors.Join(
			c.do(func() error { return unix.Fstat(at, &here) }),
			c.do(func() error { return unix.Fstat(parent, &there) }))
		if at != dir {
			c.close(at)
		}
		at = parent
		switch {
		case statErr != nil:
			return statErr
		case here.Dev == there.Dev && here.Ino == there.Ino:
			return err // the root directory, and not the root of a mount
		}
	}
}

// discardInherited replaces the inherited descriptors by /dev/null.
func discardInherited() error {
	var c calls
	null, err := c.open(unix.AT_FDCWD, os.DevNull, unix.O_RDWR, 0)
	if err != nil {
		// Without it, at least nothing may reach the container.
		c.close(inheritedMount)
		c.close(inheritedTarget)
		return fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer c.close(null)
	var errs []error
	for _, fd := range []int{inheritedMount, inheritedTarget} {
		errs = append(errs, c.do(func() error { return unix.Dup3(null, fd, unix.O_CLOEXEC) }))
	}
	return errors.Join(errs...)
}
