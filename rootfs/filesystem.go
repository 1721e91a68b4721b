package rootfs

import (
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxString is the longest value that fsconfig(2) takes as a string: the
// kernel copies 256 bytes including the NUL.
const maxString = 255

var errTooLong = errors.New("longer than the 255 bytes that fsconfig takes")

// mountFilesystem makes a detached mount of any type that is neither a bind
// mount nor an overlay.
func (a *assembly) mountFilesystem(r *request) (mount int, err error) {
	r = a.resolve(r)
	switch {
	case !r.loop && r.Type != typeErofs:
		mount, err = a.mountSource(r, r.Source)
	case r.Type == typeErofs && !r.directIO:
		// Needs no device since Linux 6.12, if configured so.
		mount, err = a.mountSource(r, r.Source)
		if err != nil && (errors.Is(err, unix.ENOTBLK) || r.loop && needsDevice(err)) {
			mount, err = a.mountLoop(r)
		}
	default:
		mount, err = a.mountLoop(r)
	}
	if err != nil || r.ids == nil {
		return mount, err
	}
	ns, err := a.userNS(r)
	if err == nil {
		defer ns.Close()
		if err = a.idmap(mount, 0, 0, ns); err == nil {
			return mount, nil
		}
		err = r.fail("mount_setattr", "uidmap, gidmap", err)
	}
	a.close(mount)
	return -1, err
}

// needsDevice reports that a file system cannot be mounted from a file: there
// is no support for it, or not for files of this file system.
func needsDevice(err error) bool {
	return errors.Is(err, unix.ENOTBLK) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}

func (a *assembly) mountLoop(r *request) (int, error) {
	device, name, err := a.loopDevice(r.Source, r.readOnly, r.directIO)
	if err != nil {
		return -1, r.fail("loop device", "", err)
	}
	// The device frees itself with its last user: from here on, the mount.
	defer a.close(device)
	if r.Type != typeErofs {
		return a.mountSource(r, name)
	}
	// The further files of an erofs go behind devices too.
	with := *r
	with.data = slices.Clone(r.data)
	for i, o := range with.data {
		if o.key != "device" {
			continue
		}
		device, name, err := a.loopDevice(o.value, r.readOnly, r.directIO)
		if err != nil {
			return -1, r.fail("loop device", o.String(), err)
		}
		defer a.close(device)
		with.data[i].value = name
	}
	return a.mountSource(&with, name)
}

// mountSource mounts what source names.
func (a *assembly) mountSource(r *request, source string) (mount int, err error) {
	fs, err := a.fsopen(r.Type)
	if err != nil {
		return -1, r.fail("fsopen", "", err)
	}
	defer a.close(fs)
	if len(source) > maxString && source[0] == '/' {
		file, err := a.open(unix.AT_FDCWD, source, unix.O_PATH, 0)
		if err != nil {
			return -1, r.fail("open", source, err)
		}
		defer a.close(file)
		source = "/proc/self/fd/" + strconv.Itoa(file)
	}
	if source != "" {
		if err := a.setValue(r, fs, option{key: "source", value: source}); err != nil {
			return -1, err
		}
	}
	if err := a.configure(r, fs); err != nil {
		return -1, err
	}
	if err := a.create(fs); err != nil {
		e := r.fail("fsconfig create", "", err)
		e.Log = a.contextLog(fs)
		return -1, e
	}
	mount, err = a.fsmount(fs, r.attrs)
	if err != nil {
		return -1, r.fail("fsmount", "", err)
	}
	a.stats.Mounts++
	return mount, nil
}

// configure sets the flags of the superblock and the file system's options.
func (a *assembly) configure(r *request, fs int) error {
	for _, flag := range r.super {
		if err := a.setValue(r, fs, option{key: flag, flag: true}); err != nil {
			return err
		}
	}
	if r.readOnly {
		if err := a.setValue(r, fs, option{key: "ro", flag: true}); err != nil {
			return err
		}
	}
	for _, o := range r.data {
		if err := a.setValue(r, fs, o); err != nil {
			return err
		}
	}
	return nil
}

func (a *assembly) setValue(r *request, fs int, o option) error {
	if len(o.value) > maxString || len(o.key) > maxString {
		return r.unsupported("fsconfig", o.key, errTooLong)
	}
	var err error
	if o.flag {
		err = a.setFlag(fs, o.key)
	} else {
		err = a.setString(fs, o.key, o.value)
	}
	if err == nil {
		return nil
	}
	e := r.fail("fsconfig", o.String(), err)
	e.Log = a.contextLog(fs)
	return e
}

// mountBind clones a directory or file. Its flags are those of its top mount,
// as mount(8) does with "rbind,ro": what is mounted below keeps its own. Flags
// are only added to those the source has; options for a file system are
// ignored. Unlike mount(2), flags count without "ro" too. An ID mapping
// covers all that was cloned.
func (a *assembly) mountBind(r *request) (mount int, err error) {
	recursive := 0
	if r.recursive {
		recursive = unix.AT_RECURSIVE
	}
	if m, _, rest := a.madeOf(r.Source); m != nil && m.device == "" {
		mount, err = a.bindMade(r, m, rest, recursive)
	} else {
		mount, err = a.openTree(unix.AT_FDCWD, a.resolved(r.Source), recursive)
	}
	if err != nil {
		return -1, r.fail("open_tree", "", err)
	}
	a.stats.Clones++
	err = a.restrictBind(r, mount, recursive)
	if err != nil {
		a.close(mount)
		return -1, err
	}
	return mount, nil
}

func (a *assembly) restrictBind(r *request, mount, recursive int) error {
	var ns *os.File
	if r.ids != nil {
		var err error
		if ns, err = a.userNS(r); err != nil {
			return err
		}
		defer ns.Close()
	}
	if err := a.idmap(mount, recursive, 0, ns); err != nil {
		return r.fail("mount_setattr", "", err)
	}
	attr := unix.MountAttr{Attr_set: r.attrs}
	if r.atime {
		attr.Attr_clr = unix.MOUNT_ATTR__ATIME
	}
	if attr.Attr_set == 0 && attr.Attr_clr == 0 {
		return nil
	}
	if err := a.setattr(mount, 0, &attr); err != nil {
		return r.fail("mount_setattr", "", err)
	}
	return nil
}

// idmap makes a detached mount private, adds attrs, and maps IDs where ns is
// not nil. flags is 0 or AT_RECURSIVE.
func (a *assembly) idmap(mount, flags int, attrs uint64, ns *os.File) error {
	attr := unix.MountAttr{Attr_set: attrs, Propagation: unix.MS_PRIVATE}
	if ns == nil {
		return a.setattr(mount, flags, &attr)
	}
	attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
	attr.Userns_fd = uint64(ns.Fd())
	err := a.setattr(mount, flags, &attr)
	if errors.Is(err, unix.EINVAL) {
		return &refusal{err, "the file system may not allow ID mappings"}
	}
	return err
}
