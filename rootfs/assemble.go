package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"
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
	// Base keeps shared bases between calls, see there. Overlays do without
	// one where it is nil.
	Base *BaseCache
	// Workshop keeps what kernels before Linux 6.15 need between calls. If
	// nil, a call that needs it makes its own.
	Workshop *Workshop
	// Tier forces a way to mount overlays; Auto is the best that the kernel
	// has.
	Tier Tier
	// Target is the directory, an absolute path, that the tree is mounted on
	// if nothing better than [Host] works. If "", Assemble fails then.
	Target string
}

// Stats says what an assembly took.
type Stats struct {
	Tier     Tier          // how overlays were mounted; Auto if there is none
	Base     bool          // on a shared base
	Layers   int           // lower directories of overlays that were named to the kernel
	Mounts   int           // file systems mounted
	Clones   int           // mounts cloned, in ways to mount that failed too
	Attached int           // operations on the caller's mount table
	Private  int           // operations on a mount table that nobody else sees
	Syscalls int           // without those that make a user namespace
	Duration time.Duration // of Assemble
	UserNS   time.Duration // the part of Duration spent on user namespaces
}

// Tree is a detached mount tree. It may be used by one goroutine at a time.
// It goes away when closed, unless it was attached or handed over before.
type Tree struct {
	file   *os.File // nil once attached or closed
	target *os.File // the memfd of a handover
	host   string   // where Assemble attached it
	stats  Stats
	held   []int // clones and layers that the overlays were made of
}

// assembly is the state of one call of Assemble.
type assembly struct {
	calls
	ctx      context.Context
	options  Options
	workshop *Workshop
	host     bool // the root is attached on the host, at options.Target
	stats    Stats
	held     []int // descriptors for the tree to close
	made     []*madeMount
}

// Assemble mounts the first of mounts as the root of a detached tree and
// attaches the others below it, each on the directory or file that its Target
// names when resolved within the root. Where mounts have transforms of
// containerd's mount manager, the root is the last of those that have, and the
// mounts before it are there for its templates only (see [Claims]). The caller's mount table does not
// change, unless [Tree.Host] says so, and nothing is left behind on failure.
// Errors of a mount are *MountError; they match [ErrInvalid], [ErrUnsupported]
// or [ErrNeedsPath] where one applies. ctx is looked at between mounts: none
// of the system calls can be cancelled.
func Assemble(ctx context.Context, mounts []Mount, o Options) (_ *Tree, err error) {
	begin := time.Now()
	if o.Target != "" && (!path.IsAbs(o.Target) || path.Clean(o.Target) == "/") {
		return nil, fmt.Errorf("assemble root filesystem on %q: not an absolute path below /: %w", o.Target, ErrInvalid)
	}
	requests, first, err := parseAll(mounts, o.Base.number)
	if err != nil {
		return nil, err
	}
	a := &assembly{ctx: ctx, options: o, workshop: o.Workshop}
	if a.workshop == nil {
		a.workshop = &Workshop{}
		defer a.workshop.Close()
	}
	root := -1
	for i, r := range requests {
		var fd int
		var err error
		if i < first {
			err = a.makeEarlier(r)
		} else if err = a.prepare(r); err == nil {
			fd, err = a.mount(r)
		}
		switch {
		case err != nil, i < first:
		case i == first:
			root = fd
		default:
			root, err = a.attachBelow(r, root, fd)
		}
		if err != nil {
			a.abandon(root)
			return nil, err
		}
	}
	if a.options.Tier == Host && !a.host {
		if err := a.attachRoot(requests[first], root); err != nil {
			a.abandon(-1)
			return nil, err
		}
	}
	t := &Tree{held: a.held}
	if a.host {
		t.host = o.Target
	} else {
		t.file = os.NewFile(uintptr(root), "mount:rootfs")
	}
	a.stats.Syscalls = a.n
	a.stats.Duration = time.Since(begin)
	t.stats = a.stats
	return t, nil
}

// abandon takes back what was made of the tree.
func (a *assembly) abandon(root int) {
	if root >= 0 {
		a.close(root)
	}
	if a.host {
		_ = Detach(a.options.Target) // the error that led here says more
	}
	for _, fd := range a.held {
		a.close(fd)
	}
}

// attachRoot attaches a tree without an overlay, which is what [Host] means
// for it.
func (a *assembly) attachRoot(r *request, root int) error {
	defer a.close(root)
	if a.options.Target == "" {
		return r.needsPath("no mount point was given")
	}
	if err := a.do(func() error {
		return unix.MoveMount(root, "", unix.AT_FDCWD, a.options.Target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}); err != nil {
		return r.fail("move_mount", a.options.Target, err)
	}
	a.stats.Attached++
	a.host = true
	return nil
}

// parseAll gives also the number of the mount that is the root.
func parseAll(mounts []Mount, numbered func(list string) int) (requests []*request, first int, err error) {
	if len(mounts) == 0 {
		return nil, 0, fmt.Errorf("assemble root filesystem: no mounts: %w", ErrInvalid)
	}
	for i, m := range mounts {
		if strings.Contains(m.Type, "/") {
			first = i
		}
	}
	requests = make([]*request, len(mounts))
	before := make([]earlier, 0, first)
	for i, m := range mounts {
		m, due, err := m.transform(before)
		if err != nil {
			return nil, 0, err
		}
		r, err := parse(m, numbered)
		if err != nil {
			return nil, 0, err
		}
		r.due, r.refers = due, len(before) > 0 && m.refers()
		requests[i] = r
		if i < first {
			before = append(before, earlier{source: m.Source, target: m.Target, mount: mountName(i)})
			continue
		}
		isRoot := path.Clean("/"+m.Target) == "/"
		switch {
		case i == first && !isRoot:
			return nil, 0, m.needsPath("the first mount is not the root")
		case r.Type == typeLoop:
			return nil, 0, m.invalid("", "a loop device that no later mount uses")
		case i > first && isRoot:
			return nil, 0, m.needsPath("a second mount on the root would hide the first")
		}
	}
	return requests, first, nil
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

// attachBelow attaches the mount fd, which it closes, to the tree root, and
// gives the tree.
func (a *assembly) attachBelow(r *request, root, fd int) (int, error) {
	defer a.close(fd)
	dir := root
	if a.host {
		var err error
		if dir, err = a.openDir(unix.AT_FDCWD, a.options.Target, 0); err != nil {
			return root, r.fail("open", a.options.Target, err)
		}
		defer a.close(dir)
		a.stats.Attached++
	}
	err := a.moveBelow(r, dir, fd)
	if a.host || !errors.Is(err, unix.EINVAL) {
		return root, err
	}
	joined, err := a.joinPrivately(r, root, fd)
	if err == nil {
		a.close(root)
		root = joined
	}
	return root, err
}

// joinPrivately attaches fd below root before Linux 6.15, when a tree must be
// attached to be added to. It gives a clone of the whole.
func (a *assembly) joinPrivately(r *request, root, fd int) (joined int, err error) {
	a.stats.Private += 2
	a.stats.Clones++
	err = a.workshop.inside(&a.calls, func() error {
		return inOrder(
			func() error {
				return a.do(func() error {
					return unix.MoveMount(root, "", unix.AT_FDCWD, rootDir, unix.MOVE_MOUNT_F_EMPTY_PATH)
				})
			},
			func() error { return a.moveBelow(r, root, fd) },
			func() (err error) {
				joined, err = a.openTree(unix.AT_FDCWD, rootDir, unix.AT_RECURSIVE)
				return err
			})
	})
	var failed *MountError
	switch {
	case err == nil:
		return joined, nil
	case errors.As(err, &failed):
		return -1, err
	}
	return -1, r.fail("attach privately", r.Target, err)
}

// moveBelow attaches fd where r says below the mount root.
func (a *assembly) moveBelow(r *request, root, fd int) error {
	target, err := a.open(root, r.Target, unix.O_PATH, resolveTarget)
	if err != nil {
		return r.fail("open target", r.Target, err)
	}
	defer a.close(target)
	if err := a.moveOnto(fd, target); err != nil {
		return r.fail("move_mount", r.Target, err)
	}
	return nil
}

// Host is the directory that Assemble attached the tree to, because nothing
// else works or [Host] was asked for; [Detach] is due in the end. It is "" for
// a detached tree.
func (t *Tree) Host() string { return t.host }

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

// Close releases the tree's descriptors, and the clones that it was made from. A tree that was not attached, here or
// by the process it was handed to, is gone then. Closing twice is allowed.
func (t *Tree) Close() error {
	var errs []error
	for _, f := range []**os.File{&t.target, &t.file} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	for _, fd := range t.held {
		_ = unix.Close(fd)
	}
	t.held = nil
	return errors.Join(errs...)
}
