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

// maxData is what mount(2) takes of options: a page less the NUL. What is
// longer is cut off without an error, and may name another directory then.
const maxData = 4095

// errNoNamespace means that there is no private mount namespace to work in.
var errNoNamespace = errors.New("no private mount namespace")

// attachment is a detached mount and where it is to be attached.
type attachment struct {
	mount int
	dir   string
}

// plan says how an overlay's directories are named once some clones have been
// attached.
type plan struct {
	attach      []attachment
	cwd         string   // what lowers are relative to, if they are
	lowers      []string // in overlay's order
	upper, work string
}

// overlayPrivately makes an overlay in a mount namespace that nobody else
// sees. Its directories are cloned here, where they can be named, and attached
// there, where overlayfs accepts them.
func (a *assembly) overlayPrivately(r *request, tier Tier) (mount int, err error) {
	l, err := a.newLayers(r)
	defer func() { l.release(err == nil) }()
	if err != nil {
		return -1, err
	}
	p, err := l.plan()
	if err != nil {
		return -1, err
	}
	err = a.workshop.inside(&a.calls, func() error {
		for _, at := range p.attach {
			if err := l.attachAt(at); err != nil {
				return l.request.fail("attach", "lowerdir", err)
			}
		}
		if err := l.do(func() error { return unix.Chdir(p.cwd) }); err != nil {
			return l.request.fail("chdir", p.cwd, err)
		}
		if tier == OptionString {
			mount, err = l.makeByOptions(p)
		} else {
			mount, err = l.makeByContext(p, tier)
		}
		return err
	})
	if err != nil {
		var e *MountError
		if !errors.As(err, &e) {
			err = r.unsupported("enter", "", fmt.Errorf("%w: %w", errNoNamespace, err))
		}
		return -1, err
	}
	a.stats.Layers += len(p.lowers)
	return mount, nil
}

// plan clones what the overlay's directories lie on: their common directory
// with all mounts below it, or each of them where that cannot be.
func (l *layers) plan() (*plan, error) {
	p := &plan{cwd: "/"}
	if l.request.refers {
		return p, l.planMade(p)
	}
	shared, names := commonParent(l.request.overlay.lowers)
	err := error(unix.EINVAL)
	if shared != "/" {
		err = l.planShared(p, shared, names)
	}
	if cannotMap(err) {
		err = l.planEach(p)
	}
	if err == nil {
		err = l.planWritable(p)
	}
	return p, err
}

func (l *layers) planShared(p *plan, shared string, names []string) error {
	dir, err := l.openParent(shared)
	if err != nil {
		return err
	}
	defer l.close(dir)
	clone, err := l.clone(dir, unix.AT_RECURSIVE)
	if err != nil {
		return l.request.fail("clone", "lowerdir "+shared, err)
	}
	p.attach = append(p.attach, attachment{clone, layersDir})
	p.cwd, p.lowers = layersDir, names
	return nil
}

func (l *layers) planEach(p *plan) error {
	for i, lower := range l.request.overlay.lowers {
		fd, err := l.openDir(unix.AT_FDCWD, lower, unix.RESOLVE_NO_MAGICLINKS)
		if err != nil {
			return l.request.fail("open", "lowerdir "+lower, err)
		}
		clone, err := l.clone(fd, 0)
		l.close(fd)
		if err != nil {
			return l.request.fail("clone", "lowerdir "+lower, err)
		}
		name := strconv.Itoa(i)
		p.attach = append(p.attach, attachment{clone, "/" + name})
		p.lowers = append(p.lowers, name)
	}
	return nil
}

// planWritable clones the directory above upper and work directory: overlayfs
// wants both on one mount.
func (l *layers) planWritable(p *plan) error {
	o := l.request.overlay
	if o.upper == "" {
		return nil
	}
	parent, names := commonParent([]string{o.upper, o.work})
	dir, err := l.openDir(unix.AT_FDCWD, parent, unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return l.request.fail("open", "upperdir, workdir "+parent, err)
	}
	defer l.close(dir)
	recursive := 0
	for _, name := range names {
		apart, err := l.onOwnMount(dir, name)
		if err != nil {
			return l.request.fail("open", "upperdir, workdir "+path.Join(parent, name), err)
		}
		if apart {
			recursive = unix.AT_RECURSIVE
		}
	}
	clone, err := l.openTree(dir, "", recursive)
	if err != nil {
		return l.request.fail("clone", "upperdir, workdir "+parent, err)
	}
	l.stats.Clones++
	l.hold(clone)
	if err := l.idmap(clone, recursive, 0, nil); err != nil {
		return l.request.fail("clone", "upperdir, workdir "+parent, err)
	}
	p.attach = append(p.attach, attachment{clone, upperDir})
	p.upper, p.work = path.Join(upperDir, names[0]), path.Join(upperDir, names[1])
	return nil
}

// attachAt attaches a detached mount in the private namespace.
func (l *layers) attachAt(at attachment) error {
	err := l.do(func() error { return unix.Mkdir(at.dir, 0o700) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	l.stats.Private++
	return l.do(func() error {
		return unix.MoveMount(at.mount, "", unix.AT_FDCWD, at.dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
}

// makeByContext names the directories to a file system context, or opens them
// for it. Up to Linux 6.14 it takes no O_PATH descriptors.
func (l *layers) makeByContext(p *plan, tier Tier) (int, error) {
	if err := l.openContext(); err != nil {
		return -1, err
	}
	defer l.close(l.fs)
	set := l.setName
	if tier == Descriptors {
		set = func(key, shown, name string) error {
			resolve := uint64(unix.RESOLVE_NO_SYMLINKS)
			fd, err := l.open(unix.AT_FDCWD, name, unix.O_RDONLY|unix.O_DIRECTORY, resolve)
			if err != nil {
				return l.request.fail("open", key+" "+shown, layerError(err))
			}
			return l.setLayer(key, shown, l.hold(fd))
		}
	}
	o := l.request.overlay
	for i, name := range p.lowers {
		if err := set(l.key(i), o.lowers[i], name); err != nil {
			return -1, err
		}
	}
	if p.upper != "" {
		for _, d := range [][3]string{{"upperdir", o.upper, p.upper}, {"workdir", o.work, p.work}} {
			if tier == Names {
				d[2] = escape(d[2], `\`)
			}
			if err := set(d[0], d[1], d[2]); err != nil {
				return -1, err
			}
		}
	}
	return l.make()
}

// makeByOptions mounts by mount(2) and takes the mount along as a clone.
func (l *layers) makeByOptions(p *plan) (int, error) {
	if err := l.mountByOptions(rootDir, p); err != nil {
		return -1, err
	}
	l.stats.Private++
	mount, err := l.openTree(unix.AT_FDCWD, rootDir, 0)
	if err != nil {
		return -1, l.request.fail("open_tree", "", err)
	}
	l.stats.Clones++
	if err := l.checkWritable(mount); err != nil {
		l.close(mount)
		return -1, err
	}
	l.stats.Mounts++
	return mount, nil
}

// mountByOptions is mount(2) on target, with lowers relative to the working
// directory.
func (l *layers) mountByOptions(target string, p *plan) error {
	r := l.request
	data := r.optionString(p)
	if len(data) > maxData {
		return r.unsupported("mount", "", errors.New("the options are "+strconv.Itoa(len(data))+" bytes long, mount(2) takes "+strconv.Itoa(maxData)))
	}
	source := r.Source
	if source == "" {
		source = r.Type
	}
	err := l.do(func() error { return unix.Mount(source, target, r.Type, r.mountFlags(), data) })
	if err == nil {
		return nil
	}
	for i, name := range p.lowers { // mount(2) does not say which
		fd, openErr := l.openDir(unix.AT_FDCWD, name, unix.RESOLVE_NO_SYMLINKS)
		if openErr != nil {
			return r.fail("open", "lowerdir "+r.overlay.lowers[i], layerError(openErr))
		}
		l.close(fd)
	}
	return r.fail("mount", "", err)
}

// optionString is the option string of mount(2).
func (r *request) optionString(p *plan) string {
	var b strings.Builder
	for i, name := range p.lowers {
		switch {
		case i == 0:
			b.WriteString("lowerdir=")
		case i >= len(p.lowers)-r.overlay.dataOnly:
			b.WriteString("::")
		default:
			b.WriteByte(':')
		}
		b.WriteString(escape(name, `\:,`))
	}
	if p.upper != "" {
		b.WriteString(",upperdir=" + escape(p.upper, `\,`) + ",workdir=" + escape(p.work, `\,`))
	}
	for _, o := range r.data {
		if strings.HasSuffix(o.key, "context") && strings.Contains(o.value, ",") {
			o.value = `"` + o.value + `"`
		}
		b.WriteString("," + o.String())
	}
	return b.String()
}

// escape puts a backslash before each of the characters.
func escape(s, characters string) string {
	if !strings.ContainsAny(s, characters) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(characters, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountFlags are the flags of mount(2) for what r asks of the mount and of
// the superblock.
func (r *request) mountFlags() (flags uintptr) {
	for attr, flag := range map[uint64]uintptr{
		unix.MOUNT_ATTR_NOSUID: unix.MS_NOSUID, unix.MOUNT_ATTR_NODEV: unix.MS_NODEV,
		unix.MOUNT_ATTR_NOEXEC: unix.MS_NOEXEC, unix.MOUNT_ATTR_NOSYMFOLLOW: unix.MS_NOSYMFOLLOW,
		unix.MOUNT_ATTR_NODIRATIME: unix.MS_NODIRATIME, unix.MOUNT_ATTR_RDONLY: unix.MS_RDONLY,
		unix.MOUNT_ATTR_NOATIME: unix.MS_NOATIME, unix.MOUNT_ATTR_STRICTATIME: unix.MS_STRICTATIME,
	} {
		if r.attrs&attr != 0 {
			flags |= flag
		}
	}
	for _, f := range []struct {
		on, off string
		flag    uintptr
	}{{"sync", "async", unix.MS_SYNCHRONOUS}, {"dirsync", "", unix.MS_DIRSYNC}, {"lazytime", "nolazytime", unix.MS_LAZYTIME}} {
		if on := slices.Index(r.super, f.on); on >= 0 && slices.Index(r.super, f.off) < on {
			flags |= f.flag
		}
	}
	return flags
}
