package rootfs

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Until it is used, an earlier mount is called by a name that is written like
// a path: it has none.
const (
	mountNameBegin = "/{mount "
	mountNameEnd   = "}"
)

func mountName(n int) string { return mountNameBegin + strconv.Itoa(n) + mountNameEnd }

// cutMountName splits the name of an earlier mount off p; rest is relative to
// it.
func cutMountName(p string) (n int, rest string, ok bool) {
	p, ok = strings.CutPrefix(p, mountNameBegin)
	if !ok {
		return 0, "", false
	}
	number, rest, ok := strings.Cut(p, mountNameEnd)
	if n, err := strconv.Atoi(number); ok && err == nil && (rest == "" || rest[0] == '/') {
		return n, strings.TrimPrefix(rest, "/"), true
	}
	return 0, "", false
}

// madeMount is a mount that later ones are made from. It is attached nowhere.
type madeMount struct {
	fd     int
	device string // of a loop device: its name, by which it is used
	used   bool   // as a lower directory, with the mapping ids
	ids    string // see IDMap.String; "" for none
}

// makeEarlier makes a mount, or a loop device, for later ones to refer to.
func (a *assembly) makeEarlier(r *request) error {
	if err := a.prepare(r); err != nil {
		return err
	}
	if r.Type == typeLoop {
		fd, name, err := a.loopDevice(a.resolved(r.Source), r.readOnly, r.directIO)
		if err != nil {
			return r.fail("loop device", "", err)
		}
		a.made = append(a.made, &madeMount{fd: fd, device: name})
		a.held = append(a.held, fd)
		return nil
	}
	given := a.options
	a.options.Target = "" // the root's
	if given.Tier == Host {
		a.options.Tier = Auto
	}
	fd, err := a.mount(r)
	a.options = given
	if err != nil {
		return err
	}
	a.made = append(a.made, &madeMount{fd: fd})
	a.held = append(a.held, fd)
	return nil
}

func (a *assembly) prepare(r *request) error {
	for _, p := range r.due {
		if err := p.prepare(a, r); err != nil {
			return err
		}
	}
	return nil
}

// resolved is s with a path for the name of every earlier mount.
func (a *assembly) resolved(s string) string {
	if !strings.Contains(s, mountNameBegin) {
		return s
	}
	for i, m := range a.made {
		name := m.device
		if name == "" {
			name = "/proc/self/fd/" + strconv.Itoa(m.fd)
		}
		s = strings.ReplaceAll(s, mountName(i), name)
	}
	return s
}

// resolve gives r with paths for the names of earlier mounts.
func (a *assembly) resolve(r *request) *request {
	if !r.refers {
		return r
	}
	with := *r
	with.Source = a.resolved(r.Source)
	with.data = make([]option, len(r.data))
	for i, o := range r.data {
		o.value = a.resolved(o.value)
		with.data[i] = o
	}
	return &with
}

// madeOf is the earlier mount that p lies on, nil if it is a path. r may refer
// to mounts before it only, which parsing has checked.
func (a *assembly) madeOf(p string) (m *madeMount, n int, rest string) {
	n, rest, ok := cutMountName(p)
	if !ok || n >= len(a.made) {
		return nil, 0, ""
	}
	return a.made[n], n, rest
}

// bindMade clones a directory of an earlier mount.
func (a *assembly) bindMade(r *request, m *madeMount, rest string, recursive int) (int, error) {
	dir := m.fd
	if rest != "" {
		var err error
		if dir, err = a.open(m.fd, rest, unix.O_PATH, resolveLayer); err != nil {
			return -1, r.fail("open", r.Source, layerError(err))
		}
		defer a.close(dir)
	}
	mount, err := a.openTree(dir, "", recursive)
	if !errors.Is(err, unix.EINVAL) {
		return mount, err
	}
	return a.bindPrivately(r, m, rest, recursive)
}

// bindPrivately clones a directory of an earlier mount before Linux 6.15, when
// only what is attached can be cloned.
func (a *assembly) bindPrivately(r *request, m *madeMount, rest string, recursive int) (mount int, err error) {
	a.stats.Private++
	err = a.workshop.inside(&a.calls, func() error {
		return inOrder(
			func() error {
				return a.do(func() error {
					return unix.MoveMount(m.fd, "", unix.AT_FDCWD, rootDir, unix.MOVE_MOUNT_F_EMPTY_PATH)
				})
			},
			func() error {
				dir, err := a.open(m.fd, path.Join(".", rest), unix.O_PATH, resolveLayer)
				if err != nil {
					return layerError(err)
				}
				defer a.close(dir)
				mount, err = a.openTree(dir, "", recursive)
				return err
			})
	})
	if err != nil {
		return -1, r.fail("clone", r.Source, err)
	}
	return mount, nil
}

// overlayOfMounts makes an overlay of earlier mounts: detached, or from Linux
// 5.14 to 6.14 in a private mount namespace. Moving them there cannot be
// repeated, so that one way must do for all those kernels, unless another is
// asked for.
func (a *assembly) overlayOfMounts(r *request) (int, error) {
	tier := a.options.Tier
	if tier != Auto && tier != Host { // Host: the result is attached there
		return a.overlayIn(tier, r)
	}
	if !a.workshop.lacks(Detached) {
		fd, err := a.overlayIn(Detached, r)
		if err == nil || !errors.Is(err, ErrUnsupported) {
			return fd, err
		}
		if can, probeErr := a.workshop.probe(Detached); can && probeErr == nil {
			var e *MountError
			if errors.As(err, &e) {
				e.Kind = nil // the kernel has it: the cause is another
			}
			return -1, err
		}
	}
	return a.overlayIn(OptionString, r)
}

// mapMade gives a mount that serves as a lower directory the overlay's ID
// mapping.
func (l *layers) mapMade(m *madeMount, n int) error {
	o, ids := l.request.overlay, ""
	if l.request.ids != nil {
		ids = l.request.ids.String()
	}
	switch {
	case m.device != "":
		return errors.New("a device is no directory")
	case m.used && m.ids == ids:
		return nil
	case m.used:
		return errors.New("in use with another ID mapping")
	}
	if l.userNS != nil {
		for _, p := range []string{o.upper, o.work} {
			if on, _, ok := cutMountName(p); ok && on == n {
				return errors.New("an ID-mapped lower directory on the same mount as the upper or work directory")
			}
		}
		if err := l.idmap(m.fd, unix.AT_RECURSIVE, cloneAttrs, l.userNS); err != nil {
			return fmt.Errorf("mount_setattr: %w", err)
		}
	}
	m.used, m.ids = true, ids
	return nil
}

// addMade gives lower directories to overlayfs of which some are on earlier
// mounts.
func (l *layers) addMade() error {
	l.cloned = true
	for i, lower := range l.request.overlay.lowers {
		fd, err := l.openMade(lower)
		if err != nil {
			return l.request.fail("open", "lowerdir "+lower, layerError(err))
		}
		if err := l.setLayer(l.key(i), lower, fd); err != nil {
			return err
		}
	}
	return nil
}

func (l *layers) openMade(lower string) (int, error) {
	m, n, rest := l.madeOf(lower)
	if m == nil {
		return l.openApart(lower)
	}
	if err := l.mapMade(m, n); err != nil {
		return -1, err
	}
	if rest == "" {
		return m.fd, nil
	}
	return l.openPlain(m.fd, rest)
}

// setMade gives the upper or the work directory to overlayfs, on an earlier
// mount.
func (l *layers) setMade(key, shown string, m *madeMount, rest string) error {
	fd, err := l.openDir(m.fd, path.Join(".", rest), resolveLayer)
	if err != nil {
		return l.request.fail("open", key+" "+shown, layerError(err))
	}
	return l.setLayer(key, shown, l.hold(fd))
}

// openApart opens a lower directory by its path.
func (l *layers) openApart(lower string) (int, error) {
	dir, err := l.openDir(unix.AT_FDCWD, path.Dir(lower), unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return -1, err
	}
	defer l.close(dir)
	if l.userNS == nil {
		return l.openPlain(dir, path.Base(lower))
	}
	return l.openAlone(dir, path.Base(lower))
}

// planMade attaches the earlier mounts themselves. Directories on them are
// named, so that they must not be reached through symbolic links.
func (l *layers) planMade(p *plan) error {
	o := l.request.overlay
	attached := map[int]bool{}
	at := func(m *madeMount, n int, rest string) (string, error) {
		dir := "/m" + strconv.Itoa(n)
		if attached[n] {
			return path.Join(dir, rest), nil
		}
		attached[n] = true
		p.attach = append(p.attach, attachment{m.fd, dir})
		return path.Join(dir, rest), l.setattr(m.fd, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSYMFOLLOW})
	}
	for i, lower := range o.lowers {
		m, n, rest := l.madeOf(lower)
		var name string
		var err error
		if m != nil {
			if err = l.mapMade(m, n); err == nil {
				name, err = at(m, n, rest)
			}
		} else {
			name = "/" + strconv.Itoa(i)
			var dir, clone int
			if dir, err = l.openDir(unix.AT_FDCWD, lower, unix.RESOLVE_NO_MAGICLINKS); err == nil {
				clone, err = l.clone(dir, 0)
				l.close(dir)
				p.attach = append(p.attach, attachment{clone, name})
			}
		}
		if err != nil {
			return l.request.fail("open", "lowerdir "+lower, layerError(err))
		}
		p.lowers = append(p.lowers, name[1:])
	}
	upper, n, upperRest := l.madeOf(o.upper)
	work, workN, workRest := l.madeOf(o.work)
	switch {
	case upper == nil && work == nil:
		return l.planWritable(p)
	case upper == nil || work == nil || n != workN:
		return l.request.invalid("upperdir, workdir", "on different mounts")
	}
	var upperErr, workErr error
	p.upper, upperErr = at(upper, n, upperRest)
	p.work, workErr = at(work, n, workRest)
	if err := errors.Join(upperErr, workErr); err != nil {
		return l.request.fail("open", "upperdir, workdir", err)
	}
	return nil
}

// refers tells whether m names an earlier mount.
func (m Mount) refers() bool {
	return strings.Contains(m.Source, mountNameBegin) ||
		slices.ContainsFunc(m.Options, func(o string) bool { return strings.Contains(o, mountNameBegin) })
}
