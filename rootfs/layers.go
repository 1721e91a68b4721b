package rootfs

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cloneAttrs are the flags of a clone of layers. overlayfs never writes to a
// lower layer, and takes setuid, setgid, device and symbolic link semantics
// from its own mount; what the last flag forbids are links in the names of
// layers (Linux 5.10).
const cloneAttrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSYMFOLLOW

// layers is what one overlay is made of while it is being made.
type layers struct {
	*assembly
	request *request
	fs      int      // file system context
	userNS  *os.File // nil without an ID mapping
	held    []int    // descriptors that must outlive the creation of the overlay
	cloned  bool     // a layer lies on a clone
}

// newLayers opens the user namespace that r needs. The caller releases the
// layers, whether or not there is an error.
func (a *assembly) newLayers(r *request) (l *layers, err error) {
	l = &layers{assembly: a, request: r, fs: -1, held: make([]int, 0, 1+min(len(r.overlay.lowers), byNameFrom))}
	if r.ids != nil {
		l.userNS, err = a.userNS(r)
	}
	return l, err
}

// hold keeps a descriptor until the release.
func (l *layers) hold(fd int) int {
	l.held = append(l.held, fd)
	return fd
}

// release closes the namespace, and the descriptors if no overlay came of
// them. Those of an overlay that was made are the Tree's: nobody shall wait
// for the end of a clone, which waits for other CPUs (an RCU grace period).
func (l *layers) release(made bool) {
	if l.userNS != nil {
		_ = l.userNS.Close()
	}
	if made {
		l.assembly.held = append(l.assembly.held, l.held...)
		return
	}
	for _, fd := range l.held {
		l.close(fd)
	}
}

// key is the parameter that names layer number i of the overlay.
func (l *layers) key(i int) string {
	if o := l.request.overlay; i >= len(o.lowers)-o.dataOnly {
		return "datadir+"
	}
	return "lowerdir+"
}

// clone makes a detached, read-only clone of the mount at dir, with the ID
// mapping if there is one; flags is 0 or AT_RECURSIVE. It is private: a shared
// one would receive, and slow down, every mount made on the file system it
// comes from.
func (l *layers) clone(dir, flags int) (int, error) {
	fd, err := l.openTree(dir, "", flags)
	if err != nil {
		return -1, err
	}
	if err := l.idmap(fd, flags, cloneAttrs, l.userNS); err != nil {
		l.close(fd)
		return -1, err
	}
	l.cloned = true
	l.stats.Clones++
	return l.hold(fd), nil
}

// cannotMap reports that a clone contains a mount that cannot be ID-mapped, or
// not once more (mount_setattr(2)).
func cannotMap(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) }

// openLayer opens the directory name below dir as a lower layer. The caller
// closes it with the layers.
type openLayer func(dir int, name string) (fd int, err error)

func (l *layers) openPlain(dir int, name string) (int, error) {
	fd, err := l.openDir(dir, name, resolveLayer)
	if err != nil {
		return -1, err
	}
	return l.hold(fd), nil
}

// openAlone opens a layer through a clone of its own.
func (l *layers) openAlone(dir int, name string) (int, error) {
	fd, err := l.openDir(dir, name, resolveLayer)
	if err != nil {
		return -1, err
	}
	defer l.close(fd)
	return l.clone(fd, 0)
}

// onOwnMount reports whether name is on another mount than dir. A clone of dir
// shows there the directory underneath.
func (l *layers) onOwnMount(dir int, name string) (bool, error) {
	above, err := l.mountID(dir, "")
	if err != nil {
		return false, err
	}
	on, err := l.mountID(dir, name)
	return on != above, err
}

// refused reports that overlayfs did not take a directory.
func (l *layers) refused(key, name string, err error) error {
	e := l.request.fail("fsconfig", key+" "+name, layerError(err))
	e.Log = l.contextLog(l.fs)
	// Before 6.5 EOPNOTSUPP; before 6.13 EINVAL, and the log names the
	// parameter; before 6.15 EBADF for O_PATH.
	unknown := errors.Is(err, unix.EINVAL) && (e.Log == "" || strings.Contains(e.Log, "'"+key+"'"))
	if unknown || errors.Is(err, unix.EBADF) || errors.Is(err, unix.EOPNOTSUPP) {
		e.Kind = ErrUnsupported
	}
	return e
}

// setLayer gives one directory to overlayfs, by descriptor.
func (l *layers) setLayer(key, name string, fd int) error {
	if err := l.setFD(l.fs, key, fd); err != nil {
		return l.refused(key, name, err)
	}
	return nil
}

// setName gives one directory to overlayfs, by name. shown is the name that
// the operator knows.
func (l *layers) setName(key, shown, name string) error {
	if len(name) > maxString {
		return l.request.unsupported("fsconfig", key+" "+shown, errTooLong)
	}
	if err := l.setString(l.fs, key, name); err != nil {
		return l.refused(key, shown, err)
	}
	return nil
}

// layerError says what two errors of opening a layer mean.
func layerError(err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		return &refusal{err, "symbolic link below the layers' common directory"}
	case errors.Is(err, unix.EXDEV):
		return &refusal{err, "leaves the layers' common directory"}
	}
	return err
}

// overlapError says what ELOOP means of an overlay being made: it is not about
// links (overlayfs.rst, "Overlapping layers").
func overlapError(err error) error {
	if errors.Is(err, unix.ELOOP) {
		return &refusal{err, "one of its directories is, or lies in, another"}
	}
	return err
}

type refusal struct {
	error
	reason string
}

func (r *refusal) Error() string { return r.reason + ": " + r.error.Error() }
func (r *refusal) Unwrap() error { return r.error }

// commonParent gives the deepest directory that holds all of the cleaned
// absolute paths, none of them itself, and their names below it.
func commonParent(paths []string) (parent string, names []string) {
	parent = path.Dir(paths[0])
	for _, p := range paths[1:] {
		for parent != "/" && !(len(p) > len(parent) && p[len(parent)] == '/' && strings.HasPrefix(p, parent)) {
			parent = path.Dir(parent)
		}
	}
	skip := len(parent) + 1
	if parent == "/" {
		skip = 1
	}
	names = slices.Clone(paths)
	for i := range names {
		names[i] = names[i][skip:]
	}
	return parent, names
}
