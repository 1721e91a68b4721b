package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Mount is one entry of containerd's CreateTaskRequest.Rootfs.
type Mount struct {
	Type, Source string
	Target       string // below the root; "" or "/" is the root
	Options      []string
}

// Options are what a caller has at hand that makes assembling cheaper. The
// zero value is valid.
type Options struct {
	// UserNS is the path of a user namespace that may serve for ID mapping,
	// usually the pod's: /proc/<pid>/ns/user. It is used if its mapping equals
	// the one asked for, which can be told for paths of that form only, and
	// ignored otherwise.
	UserNS string
	// Cache keeps user namespaces between calls. May be nil.
	Cache *UserNSCache
}

// Stats says what an assembly took.
type Stats struct {
	Layers   int           // lower directories of overlays
	Mounts   int           // file systems mounted, detached
	Clones   int           // mounts cloned, detached
	Attached int           // operations on a mount table: 0, or 1 after Attach
	Syscalls int           // without those that make a user namespace
	Duration time.Duration // of Assemble
	UserNS   time.Duration // the part of Duration spent on user namespaces
}

// Tree is a detached mount tree. It may be used by one goroutine at a time.
// It goes away when closed, unless it was attached or handed over before.
type Tree struct {
	file   *os.File // nil once attached or closed
	target *os.File // the memfd of a handover
	stats  Stats
}

// assembly is the state of one call of Assemble.
type assembly struct {
	calls
	ctx     context.Context
	options Options
	stats   Stats
}

// Assemble mounts the first of mounts as the root of a detached tree and
// attaches the others below it, each on the directory or file that its Target
// names when resolved within the root. No mount table changes, and nothing is
// left behind on failure. Errors of a mount are *MountError; they match
// [ErrInvalid], [ErrUnsupported] or [ErrNeedsPath] where one applies. ctx is
// looked at between mounts: none of the system calls can be cancelled.
func Assemble(ctx context.Context, mounts []Mount, o Options) (*Tree, error) {
	begin := time.Now()
	requests, err := parseAll(mounts)
	if err != nil {
		return nil, err
	}
	a := &assembly{ctx: ctx, options: o}
	root := -1
	for i, r := range requests {
		fd, err := a.mount(r)
		if err == nil && i > 0 {
			err = a.attachBelow(r, root, fd)
			a.close(fd)
		}
		if err != nil {
			if root >= 0 {
				a.close(root)
			}
			return nil, err
		}
		if i == 0 {
			root = fd
		}
	}
	a.stats.Syscalls = a.n
	a.stats.Duration = time.Since(begin)
	return &Tree{file: os.NewFile(uintptr(root), "mount:rootfs"), stats: a.stats}, nil
}

func parseAll(mounts []Mount) ([]*request, error) {
	if len(mounts) == 0 {
		return nil, fmt.Errorf("assemble root filesystem: no mounts: %w", ErrInvalid)
	}
	requests := make([]*request, len(mounts))
	for i, m := range mounts {
		r, err := parse(m)
		if err != nil {
			return nil, err
		}
		isRoot := path.Clean("/"+m.Target) == "/"
		switch {
		case i == 0 && !isRoot:
			return nil, m.needsPath("", "the first mount is not the root")
		case i > 0 && isRoot:
			return nil, m.needsPath("", "a second mount on the root would hide the first")
		}
		requests[i] = r
	}
	return requests, nil
}

// mount makes one detached mount.
func (a *assembly) mount(r *request) (int, error) {
	if err := context.Cause(a.ctx); err != nil {
		return -1, r.fail("start", "", err)
	}
	switch {
	case r.bind:
		return a.mountBind(r)
	case r.overlay != nil:
		return a.mountOverlay(r)
	}
	return a.mountFilesystem(r)
}

// attachBelow attaches the detached mount fd to the detached tree root.
func (a *assembly) attachBelow(r *request, root, fd int) error {
	target, err := a.open(root, r.Target, unix.O_PATH, resolveTarget)
	if err != nil {
		return r.fail("open target", r.Target, err)
	}
	defer a.close(target)
	if err := a.moveOnto(fd, target); err != nil {
		e := r.fail("move_mount", r.Target, err)
		if errors.Is(err, unix.EINVAL) { // before Linux 6.15
			e.Kind = ErrUnsupported
		}
		return e
	}
	return nil
}

// File is the root of the detached tree, an O_PATH descriptor that belongs to
// the tree. It is nil after Attach or Close.
func (t *Tree) File() *os.File { return t.file }

// Stats says what the tree took.
func (t *Tree) Stats() Stats { return t.stats }

var errNoTree = errors.New("the tree was attached or closed")

// Attach attaches the tree to the directory target, an absolute path whose
// last component is not followed if it is a symbolic link, in one operation on
// the caller's mount namespace. It then releases the tree's descriptor, which
// would keep the mount busy. [Detach] is its opposite. On failure the tree
// stays as it was.
func (t *Tree) Attach(target string) error {
	if t.file == nil {
		return fmt.Errorf("attach root filesystem to %s: %w", target, errNoTree)
	}
	if !path.IsAbs(target) {
		return fmt.Errorf("attach root filesystem to %q: not an absolute path: %w", target, ErrInvalid)
	}
	var c calls
	err := c.do(func() error {
		return unix.MoveMount(int(t.file.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
	runtime.KeepAlive(t.file)
	if err != nil {
		return fmt.Errorf("attach root filesystem to %s: move_mount: %w", target, err)
	}
	t.stats.Attached++
	t.stats.Syscalls += c.n
	return t.Close()
}

// Close releases the tree's descriptors. A tree that was not attached, here or
// by the process it was handed to, is gone then. Closing twice is allowed.
func (t *Tree) Close() error {
	var errs []error
	for _, f := range []**os.File{&t.target, &t.file} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}
