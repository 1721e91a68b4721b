package rootfs

import (
	"errors"

	"golang.org/x/sys/unix"
)

// overlayOnHost mounts an overlay on Options.Target by one mount(2), in the
// mount namespace of the caller. With an ID mapping, the clone of the layers'
// common directory must be attached meanwhile: it is on the target too,
// beneath the overlay, which changes places with it in the end.
func (a *assembly) overlayOnHost(r *request) error {
	if a.options.Target == "" {
		return r.needsPath("no mount point was given")
	}
	l, err := a.newLayers(r)
	defer l.release(false)
	if err != nil {
		return err
	}
	o := r.overlay
	shared, names := commonParent(o.lowers)
	dir, err := l.openParent(shared)
	if err != nil {
		return err
	}
	defer l.close(dir)
	for i, name := range names {
		fd, err := l.openDir(dir, name, resolveLayer)
		if err != nil {
			return r.fail("open", "lowerdir "+o.lowers[i], layerError(err))
		}
		l.close(fd)
	}
	p := &plan{lowers: names, upper: o.upper, work: o.work}
	if l.userNS == nil {
		err = l.mountPlain(dir, p)
	} else {
		err = l.mountOverClone(dir, p)
	}
	if err != nil {
		return err
	}
	a.stats.Layers += len(names)
	a.stats.Mounts++
	a.host = true
	return nil
}

func (l *layers) mountPlain(dir int, p *plan) error {
	err := l.inDirectory(dir, func() error { return l.mountByOptions(l.options.Target, p) })
	if err != nil {
		return err
	}
	l.stats.Attached++
	return l.keepWritable()
}

// keepWritable unmounts an overlay that came up read-only.
func (l *layers) keepWritable() error {
	mount, err := l.openDir(unix.AT_FDCWD, l.options.Target, 0)
	if err != nil {
		return errors.Join(l.request.fail("open", l.options.Target, err), l.unmountTop())
	}
	err = l.checkWritable(mount)
	l.close(mount)
	if err != nil {
		return errors.Join(err, l.unmountTop())
	}
	return nil
}

func (l *layers) mountOverClone(dir int, p *plan) error {
	r, target := l.request, l.options.Target
	clone, err := l.clone(dir, unix.AT_RECURSIVE)
	if err != nil {
		return r.unsupported("clone", "lowerdir", err)
	}
	at := attachment{clone, target}
	if err := l.attachOnHost(at); err != nil {
		return r.fail("attach clone of lowerdir on", target, err)
	}
	if err := l.inDirectory(clone, func() error { return l.mountByOptions(target, p) }); err != nil {
		return errors.Join(err, l.unmountTop())
	}
	l.stats.Attached++
	if err := l.keepWritable(); err != nil {
		return errors.Join(err, l.unmountTop())
	}
	overlay, err := l.openTree(unix.AT_FDCWD, target, 0)
	if err != nil {
		return errors.Join(r.fail("open_tree", target, err), l.unmountTop(), l.unmountTop())
	}
	l.stats.Clones++
	defer l.close(overlay)
	if err := errors.Join(l.unmountTop(), l.unmountTop()); err != nil {
		return err
	}
	if err := l.attachOnHost(attachment{overlay, target}); err != nil {
		return r.fail("move_mount", target, err)
	}
	return nil
}

// attachOnHost attaches a detached mount in the caller's mount namespace.
func (l *layers) attachOnHost(at attachment) error {
	l.stats.Attached++
	return l.do(func() error {
		return unix.MoveMount(at.mount, "", unix.AT_FDCWD, at.dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
}

// unmountTop takes the topmost mount on the target away.
func (l *layers) unmountTop() error {
	l.stats.Attached++
	err := l.do(func() error {
		return unix.Unmount(l.options.Target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	})
	if err != nil {
		return l.request.fail("umount2", l.options.Target, err)
	}
	return nil
}
