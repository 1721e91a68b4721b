package rootfs

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// cloneAttrs are the flags of a clone of layers. overlayfs never writes to a
// lower layer, and takes setuid, setgid and device semantics from its own
// mount.
const cloneAttrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

// layers gives the directories of one overlay to its file system context.
type layers struct {
	*assembly
	request *request
	fs      int
	userNS  *os.File // nil without an ID mapping
	clones  []int    // detached; must outlive the creation of the overlay
}

// release closes the clones and the namespace.
func (l *layers) release() {
	for _, fd := range l.clones {
		l.close(fd)
	}
	if l.userNS != nil {
		_ = l.userNS.Close()
	}
}

// addLowers names the lower directories, topmost first.
func (l *layers) addLowers() (err error) {
	o := l.request.overlay
	if l.request.ids != nil {
		if l.userNS, err = l.assembly.userNS(l.request); err != nil {
			return err
		}
	}
	shared, names := commonParent(o.lowers)
	if shared == "/" {
		// No directory of their own: do not clone the whole system.
		for i, lower := range o.lowers {
			if err := l.addBelow(path.Dir(lower), []string{path.Base(lower)}, i); err != nil {
				return err
			}
		}
		return nil
	}
	return l.addBelow(shared, names, 0)
}

// addBelow names the lower directories names of the directory parent; the
// first of them is the layer number first of the overlay.
func (l *layers) addBelow(parent string, names []string, first int) error {
	dir, err := l.openDir(unix.AT_FDCWD, parent, unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return l.request.fail("open", "lowerdir "+parent, err)
	}
	defer l.close(dir)
	var open openLayer = l.openPlain
	switch {
	case l.userNS != nil && len(names) == 1:
		open = l.openAlone
	case l.userNS != nil:
		if open, err = l.throughClone(dir); err != nil {
			return l.request.fail("clone", "lowerdir "+parent, err)
		}
	}
	for i, name := range names {
		key := "lowerdir+"
		if o := l.request.overlay; first+i >= len(o.lowers)-o.dataOnly {
			key = "datadir+"
		}
		fd, owned, err := open(dir, name)
		if err != nil {
			return l.request.fail("open", "lowerdir "+path.Join(parent, name), layerError(err))
		}
		err = l.setLayer(key, path.Join(parent, name), fd)
		if owned {
			l.close(fd)
		}
		if err != nil {
			return err
		}
		l.stats.Layers++
	}
	return nil
}

// openLayer opens the directory name below dir as a lower layer. Whether the
// caller must close it is the second result.
type openLayer func(dir int, name string) (fd int, owned bool, err error)

func (l *layers) openPlain(dir int, name string) (int, bool, error) {
	fd, err := l.openDir(dir, name, resolveLayer)
	return fd, true, err
}

// openAlone opens a layer through an ID-mapped clone of its own.
func (l *layers) openAlone(dir int, name string) (int, bool, error) {
	fd, err := l.openDir(dir, name, resolveLayer)
	if err != nil {
		return -1, false, err
	}
	defer l.close(fd)
	clone, err := l.clone(fd)
	return clone, false, err
}

// throughClone clones dir and opens layers through the clone. It shows what
// lies on dir's own mount: a layer on another one is opened alone.
func (l *layers) throughClone(dir int) (openLayer, error) {
	clone, err := l.clone(dir)
	if err != nil {
		return nil, err
	}
	mount, err := l.mountID(dir, "")
	if err != nil {
		return nil, err
	}
	return func(dir int, name string) (int, bool, error) {
		on, err := l.mountID(dir, name)
		if err != nil {
			return -1, false, err
		}
		if on != mount {
			return l.openAlone(dir, name)
		}
		return l.openPlain(clone, name)
	}, nil
}

// clone makes a detached, ID-mapped, read-only clone of the mount at dir. It
// is private: a shared one would receive, and slow down, every mount made on
// the file system it comes from.
func (l *layers) clone(dir int) (int, error) {
	fd, err := l.openTree(dir, "", 0)
	if err != nil {
		return -1, err
	}
	l.clones = append(l.clones, fd)
	l.stats.Clones++
	return fd, l.idmap(fd, 0, cloneAttrs, l.userNS)
}

// addWritable names the upper and the work directory.
func (l *layers) addWritable() error {
	o := l.request.overlay
	parent, names := commonParent([]string{o.upper, o.work})
	dir, err := l.openDir(unix.AT_FDCWD, parent, unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return l.request.fail("open", "upperdir, workdir "+parent, err)
	}
	defer l.close(dir)
	for i, key := range []string{"upperdir", "workdir"} {
		fd, err := l.openDir(dir, names[i], resolveLayer)
		if err != nil {
			return l.request.fail("open", key+" "+path.Join(parent, names[i]), layerError(err))
		}
		err = l.setLayer(key, path.Join(parent, names[i]), fd)
		l.close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// setLayer gives one directory to overlayfs.
func (l *layers) setLayer(key, name string, fd int) error {
	err := l.setFD(l.fs, key, fd)
	if err == nil {
		return nil
	}
	e := l.request.fail("fsconfig", key+" "+name, err)
	e.Log = l.contextLog(l.fs)
	// Before 6.5 EOPNOTSUPP; before 6.13 EINVAL, and the log names the
	// parameter; before 6.15 EBADF for O_PATH.
	refused := errors.Is(err, unix.EINVAL) && (e.Log == "" || strings.Contains(e.Log, "'"+key+"'"))
	if refused || errors.Is(err, unix.EBADF) || errors.Is(err, unix.EOPNOTSUPP) {
		e.Kind = ErrUnsupported
	}
	return e
}

// layerError says what the two errors of openat2(2) mean here.
func layerError(err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		return &refusal{err, "symbolic link below the layers' common directory"}
	case errors.Is(err, unix.EXDEV):
		return &refusal{err, "leaves the layers' common directory"}
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
		for parent != "/" && !strings.HasPrefix(path.Dir(p)+"/", parent+"/") {
			parent = path.Dir(parent)
		}
	}
	names = make([]string, len(paths))
	for i, p := range paths {
		names[i] = strings.TrimPrefix(strings.TrimPrefix(p, parent), "/")
	}
	return parent, names
}
