package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// resolveChangeable keeps a path below the directory that may be changed,
	// as Go's os.Root does.
	resolveChangeable = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS
	// imageMode is what containerd gives to the images it makes.
	imageMode = 0o640
	// mkfsLimit ends a mkfs that is stuck. One of a sparse file takes
	// milliseconds.
	mkfsLimit = time.Minute
	// mkfsFile is the image in the process of mkfs, which inherits it first.
	mkfsFile = "/proc/self/fd/3"
)

// openParent opens the directory above the place.
func (p place) openParent(a *assembly) (int, error) {
	root := -1
	if m, _, _ := a.madeOf(p.root); m != nil {
		root = m.fd
	} else {
		fd, err := a.openDir(unix.AT_FDCWD, p.root, 0)
		if err != nil {
			return -1, err
		}
		defer a.close(fd)
		root = fd
	}
	return a.openDir(root, path.Dir(p.name), resolveChangeable)
}

func (p place) String() string { return path.Join(p.root, p.name) }

// prepare makes the directory. One that exists must be as asked for: it may be
// in use. That of a made one is set after its creation, past the umask.
func (d directory) prepare(a *assembly, r *request) error {
	parent, err := d.openParent(a)
	if err != nil {
		return r.fail("mkdir", d.String(), err)
	}
	defer a.close(parent)
	base := path.Base(d.name)
	err = a.do(func() error { return unix.Mkdirat(parent, base, uint32(d.mode)) })
	existed := errors.Is(err, unix.EEXIST)
	if err != nil && !existed {
		return r.fail("mkdir", d.String(), err)
	}
	fd, err := a.open(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return r.fail("mkdir", d.String(), err)
	}
	defer a.close(fd)
	if existed {
		err = a.checkDirectory(fd, d)
	} else {
		err = inOrder(
			func() error {
				if d.uid == noOwner {
					return nil
				}
				return a.do(func() error { return unix.Fchown(fd, d.uid, d.gid) })
			},
			func() error { return a.do(func() error { return unix.Fchmod(fd, uint32(d.mode)) }) })
	}
	if err != nil {
		return r.fail("mkdir", d.String(), err)
	}
	return nil
}

func (a *assembly) checkDirectory(fd int, d directory) error {
	var st unix.Stat_t
	if err := a.do(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return err
	}
	if mode := os.FileMode(st.Mode) & os.ModePerm; mode != d.mode {
		return fmt.Errorf("exists with mode %#o instead of %#o", mode, d.mode)
	}
	if d.uid != noOwner && (int(st.Uid) != d.uid || int(st.Gid) != d.gid) {
		return fmt.Errorf("exists with owner %d:%d instead of %d:%d", st.Uid, st.Gid, d.uid, d.gid)
	}
	return nil
}

// prepare makes the image unless there is a file of its name. It has no name
// before it is complete, so that an end at any instant leaves none behind.
func (f image) prepare(a *assembly, r *request) error {
	if err := f.make(a); err != nil {
		return r.fail("mkfs."+f.fs, f.String(), err)
	}
	return nil
}

func (f image) make(a *assembly) error {
	parent, err := f.openParent(a)
	if err != nil {
		return err
	}
	defer a.close(parent)
	base := path.Base(f.name)
	fd, err := a.open(parent, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err == nil {
		a.close(fd)
		return nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	how := unix.OpenHow{Flags: unix.O_RDWR | unix.O_TMPFILE | unix.O_CLOEXEC, Mode: imageMode}
	err = a.do(func() error {
		fd, err = unix.Openat2(parent, ".", &how)
		return err
	})
	if err != nil {
		return fmt.Errorf("open a file without a name: %w", err)
	}
	file := os.NewFile(uintptr(fd), f.String())
	defer file.Close()
	if err := file.Truncate(f.size); err != nil {
		return err
	}
	if err := f.mkfs(a.ctx, file); err != nil {
		return err
	}
	err = a.do(func() error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), parent, base, unix.AT_SYMLINK_FOLLOW)
	})
	if errors.Is(err, unix.EEXIST) {
		return nil // somebody else was quicker
	}
	return err
}

func (f image) mkfs(ctx context.Context, file *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, mkfsLimit)
	defer cancel()
	args := []string{"-q"}
	switch {
	case f.fs == "xfs" && f.uuid != "":
		args = append(args, "-m", "uuid="+f.uuid)
	case f.fs == "xfs":
	default:
		args = append(args, "-F") // no question whether a nameless file is meant
		if f.uuid != "" {
			args = append(args, "-U", f.uuid)
		}
	}
	cmd := exec.CommandContext(ctx, "mkfs."+f.fs, append(args, mkfsFile)...)
	cmd.ExtraFiles = []*os.File{file}
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(context.Cause(ctx), fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out))))
	}
	return nil
}
