package rootfs

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// byNameFrom is the number of layers from which it is cheaper to name them in
// a thread of their own, which costs as much as some dozen layers do, than to
// open each.
const byNameFrom = 64

// overlayDetached makes an overlay of which no part is attached anywhere. base
// stands for all of its lower directories if not nil.
func (a *assembly) overlayDetached(r *request, base *os.File) (int, error) {
	fd, named, err := a.tryDetached(r, base, false)
	if named && errors.Is(err, unix.EINVAL) {
		// A layer that is a mount of its own cannot be named through the clone
		// (but never is, silently, the directory underneath).
		fd, _, err = a.tryDetached(r, base, true)
	}
	return fd, err
}

func (a *assembly) tryDetached(r *request, base *os.File, careful bool) (fd int, named bool, err error) {
	l, err := a.newLayers(r)
	defer func() { l.release(err == nil) }()
	if err != nil {
		return -1, false, err
	}
	if err = l.openContext(); err != nil {
		return -1, false, err
	}
	defer a.close(l.fs)
	if base != nil {
		err = l.setLayer("lowerdir+", "of the shared base", int(base.Fd()))
	} else {
		named, err = l.addLowers(careful)
	}
	if err != nil {
		return -1, named, err
	}
	if err = l.addWritable(); err != nil {
		return -1, named, err
	}
	if fd, err = l.make(); err == nil && base == nil {
		a.stats.Layers += len(r.overlay.lowers)
	}
	return fd, named, err
}

// openContext begins an overlay.
func (l *layers) openContext() (err error) {
	if l.fs, err = l.fsopen("overlay"); err != nil {
		return l.request.fail("fsopen", "", err)
	}
	if source := l.request.Source; source != "" && len(source) <= maxString {
		if err := l.setString(l.fs, "source", source); err != nil {
			l.close(l.fs)
			return l.request.fail("fsconfig", "source", err)
		}
	}
	return nil
}

// addLowers gives the lower directories to overlayfs, topmost first, and says
// whether it did so by name.
func (l *layers) addLowers(careful bool) (named bool, err error) {
	o := l.request.overlay
	if l.request.refers {
		return false, l.addMade()
	}
	shared, names := commonParent(o.lowers)
	if shared == "/" {
		// No directory of their own: do not clone the whole system.
		for i, lower := range o.lowers {
			if err := l.addBelow(path.Dir(lower), []string{path.Base(lower)}, i); err != nil {
				return false, err
			}
		}
		return false, nil
	}
	if careful || len(names) < byNameFrom || slices.ContainsFunc(names, func(name string) bool { return len(name) > maxString }) {
		return false, l.addBelow(shared, names, 0)
	}
	dir, err := l.openParent(shared)
	if err != nil {
		return false, err
	}
	defer l.close(dir)
	if apart, err := l.onOwnMount(dir, names[0]); err != nil || apart {
		return false, l.addBelow(shared, names, 0)
	}
	clone, err := l.clone(dir, unix.AT_RECURSIVE)
	if err != nil {
		return false, l.addBelow(shared, names, 0)
	}
	return true, l.addNames(clone, shared, names)
}

// addNames gives the lower directories to overlayfs by their names below dir.
func (l *layers) addNames(dir int, parent string, names []string) error {
	return l.inDirectory(dir, func() error {
		for i, name := range names {
			if err := l.setString(l.fs, l.key(i), name); err != nil {
				return l.refused(l.key(i), path.Join(parent, name), err)
			}
		}
		return nil
	})
}

func (l *layers) openParent(parent string) (int, error) {
	dir, err := l.openDir(unix.AT_FDCWD, parent, unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return -1, l.request.fail("open", "lowerdir "+parent, err)
	}
	return dir, nil
}

// addBelow opens the lower directories names of the directory parent, and
// gives overlayfs the descriptors; the first of them is layer number first of
// the overlay.
func (l *layers) addBelow(parent string, names []string, first int) error {
	dir, err := l.openParent(parent)
	if err != nil {
		return err
	}
	defer l.close(dir)
	var open openLayer = l.openPlain
	switch {
	case l.userNS != nil && len(names) == 1:
		open = l.openAlone
	case l.userNS != nil:
		if open, err = l.throughClone(dir, names[0]); err != nil {
			return l.request.fail("clone", "lowerdir "+parent, err)
		}
	}
	for i, name := range names {
		fd, err := open(dir, name)
		if err != nil {
			return l.request.fail("open", "lowerdir "+path.Join(parent, name), layerError(err))
		}
		if err := l.setFD(l.fs, l.key(first+i), fd); err != nil {
			return l.refused(l.key(first+i), path.Join(parent, name), err)
		}
	}
	return nil
}

// throughClone clones dir and opens layers through the clone. A layer on
// another mount is opened alone. The kernel tells which those are: a recursive
// clone has the mounts below dir, and openat2 refuses to cross into one.
func (l *layers) throughClone(dir int, name string) (openLayer, error) {
	apart, err := l.onOwnMount(dir, name)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return nil, err
	}
	if !apart {
		clone, err := l.clone(dir, unix.AT_RECURSIVE)
		if err == nil {
			return func(dir int, name string) (int, error) {
				fd, err := l.openDir(clone, name, resolveLayer|unix.RESOLVE_NO_XDEV)
				if errors.Is(err, unix.EXDEV) {
					return l.openAlone(dir, name)
				}
				if err != nil {
					return -1, err
				}
				return l.hold(fd), nil
			}, nil
		}
		if !cannotMap(err) {
			return nil, err
		}
	}
	return l.asking(dir)
}

// asking clones dir alone, and asks for each layer whether it is on the same
// mount: some mount below dir cannot be ID-mapped, or most layers are mounts.
func (l *layers) asking(dir int) (openLayer, error) {
	clone, err := l.clone(dir, 0)
	if err != nil {
		return nil, err
	}
	return func(dir int, name string) (int, error) {
		apart, err := l.onOwnMount(dir, name)
		if err != nil {
			return -1, err
		}
		if apart {
			return l.openAlone(dir, name)
		}
		return l.openPlain(clone, name)
	}, nil
}

// addWritable gives the upper and the work directory to overlayfs. They are
// the snapshotter's own paths, and are named unless a name is too long or
// would be read as an escape.
func (l *layers) addWritable() error {
	o := l.request.overlay
	for _, d := range []struct{ key, path string }{{"upperdir", o.upper}, {"workdir", o.work}} {
		switch m, _, rest := l.madeOf(d.path); {
		case m != nil:
			if err := l.setMade(d.key, d.path, m, rest); err != nil {
				return err
			}
		case d.path == "":
		case len(d.path) <= maxString && !strings.Contains(d.path, `\`):
			if err := l.setName(d.key, d.path, d.path); err != nil {
				return err
			}
		default:
			fd, err := l.openDir(unix.AT_FDCWD, d.path, unix.RESOLVE_NO_MAGICLINKS)
			if err != nil {
				return l.request.fail("open", d.key+" "+d.path, err)
			}
			l.hold(fd)
			if err := l.setLayer(d.key, d.path, fd); err != nil {
				return err
			}
		}
	}
	return nil
}

// make makes the overlay from what its context was told.
func (l *layers) make() (mount int, err error) {
	r := l.request
	if err := l.configure(r, l.fs); err != nil {
		return -1, err
	}
	if err := l.create(l.fs); err != nil {
		e := r.fail("fsconfig create", "", overlapError(err))
		e.Log = l.contextLog(l.fs)
		if errors.Is(err, unix.EINVAL) && l.cloned && e.Log == "" {
			// Up to Linux 6.14 a layer on a detached mount is refused so, and
			// other causes look the same.
			e.Kind = ErrUnsupported
		}
		return -1, e
	}
	if mount, err = l.fsmount(l.fs, r.attrs); err != nil {
		return -1, r.fail("fsmount", "", err)
	}
	if err := l.checkWritable(mount); err != nil {
		l.close(mount)
		return -1, err
	}
	l.stats.Mounts++
	return mount, nil
}

// checkWritable notices that overlayfs came up read-only, which it does
// without an error when it cannot use the work directory.
func (l *layers) checkWritable(mount int) error {
	o := l.request.overlay
	if o.upper == "" || l.request.readOnly {
		return nil
	}
	readOnly, err := l.readOnly(mount)
	if err == nil && readOnly {
		err = errors.New("overlayfs came up read-only: it could not use the work directory " + o.work)
	}
	if err != nil {
		return l.request.fail("check", "", err)
	}
	return nil
}
