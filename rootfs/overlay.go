package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLowers is overlayfs' OVL_MAX_STACK, the same in all versions.
const maxLowers = 500

// overlay is what an overlay mount's options name.
type overlay struct {
	lowers      []string // topmost first, data-only layers last
	dataOnly    int      // how many of lowers are data-only
	upper, work string   // both or neither
}

// parseOverlay moves the directories out of r.data. overlayfs reports most
// contradictions only in the kernel's ring buffer, so they are found here.
func (r *request) parseOverlay() error {
	o := &overlay{}
	var lowers, dataOnly []string
	rest := r.data[:0:0]
	for _, d := range r.data {
		var err error
		switch d.key {
		case "lowerdir":
			if lowers != nil || dataOnly != nil {
				return r.invalid(d.key, "given more than once")
			}
			lowers, dataOnly, err = splitLowers(d.value)
		case "lowerdir+":
			lowers = append(lowers, d.value)
		case "datadir+":
			dataOnly = append(dataOnly, d.value)
		case "upperdir":
			err = setOnce(&o.upper, d.value)
		case "workdir":
			err = setOnce(&o.work, d.value)
		default:
			rest = append(rest, d)
		}
		if err != nil {
			return r.invalid(d.key, "%w", err)
		}
	}
	r.data, r.overlay = rest, o
	o.lowers, o.dataOnly = append(lowers, dataOnly...), len(dataOnly)
	return r.checkOverlay(len(lowers))
}

func (r *request) checkOverlay(lowers int) error {
	o := r.overlay
	switch {
	case r.loop:
		return r.invalid("loop", "an overlay has no device")
	case lowers == 0:
		return r.invalid("lowerdir", "no lower directory")
	case len(o.lowers) > maxLowers:
		return r.invalid("lowerdir", "%d lower directories, overlayfs takes %d", len(o.lowers), maxLowers)
	case (o.upper == "") != (o.work == ""):
		return r.invalid("upperdir, workdir", "one without the other")
	case o.upper == "" && len(o.lowers) < 2:
		return r.invalid("lowerdir", "a single lower directory and no upper one is a bind mount")
	}
	for i, lower := range o.lowers {
		if err := checkPath(lower); err != nil {
			return r.invalid("lowerdir "+lower, "%w", err)
		}
		o.lowers[i] = filepath.Clean(lower)
	}
	for _, p := range []*string{&o.upper, &o.work} {
		if *p == "" {
			continue
		}
		if err := checkPath(*p); err != nil {
			return r.invalid("upperdir, workdir "+*p, "%w", err)
		}
		*p = filepath.Clean(*p)
	}
	if r.has("userxattr") {
		for _, d := range r.data {
			if d.key == "metacopy" && d.value == "on" || d.key == "redirect_dir" && d.value == "on" || d.key == "verity" && d.value != "off" {
				return r.invalid(d.String(), "cannot be combined with userxattr")
			}
		}
	}
	return nil
}

func (r *request) has(key string) bool {
	return slices.ContainsFunc(r.data, func(d option) bool { return d.key == key })
}

// splitLowers cuts overlayfs' list of lower directories: colons separate, a
// backslash takes the next character literally, and behind a double colon a
// layer holds data only.
func splitLowers(s string) (lowers, dataOnly []string, err error) {
	var b strings.Builder
	list := &lowers
	for i := 0; i <= len(s); i++ {
		switch {
		case i < len(s) && s[i] == '\\':
			i++
			if i == len(s) {
				return nil, nil, errors.New("ends in a backslash")
			}
			b.WriteByte(s[i])
		case i < len(s) && s[i] != ':':
			b.WriteByte(s[i])
		default:
			if b.Len() == 0 {
				return nil, nil, errors.New("empty name in the list")
			}
			*list = append(*list, b.String())
			b.Reset()
			switch {
			case strings.HasPrefix(s[i:], "::"):
				list = &dataOnly
				i++
			case list == &dataOnly && i < len(s):
				return nil, nil, errors.New("single colon behind a data-only layer")
			}
		}
	}
	return lowers, dataOnly, nil
}

// setOnce takes the value of upperdir= or workdir=, where overlayfs too reads
// a backslash as an escape.
func setOnce(field *string, value string) error {
	if *field != "" {
		return errors.New("given more than once")
	}
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] == '\\' && i+1 < len(value) {
			i++
		}
		b.WriteByte(value[i])
	}
	*field = b.String()
	if *field == "" {
		return errors.New("no directory")
	}
	return nil
}

// checkPath refuses names whose meaning would depend on something else than
// the directory tree.
func checkPath(p string) error {
	switch {
	case !path.IsAbs(p):
		return errors.New("not an absolute path")
	case slices.Contains(strings.Split(p, "/"), ".."):
		return errors.New(`".." in the path`)
	case filepath.Clean(p) == "/":
		return errors.New("the root directory cannot be a layer")
	}
	return nil
}

// mountOverlay makes a detached overlay.
func (a *assembly) mountOverlay(r *request) (mount int, err error) {
	o := r.overlay
	fs, err := a.fsopen("overlay")
	if err != nil {
		return -1, r.fail("fsopen", "", err)
	}
	defer a.close(fs)
	if r.Source != "" {
		if err := a.setString(fs, "source", r.Source); err != nil {
			return -1, r.fail("fsconfig", "source", err)
		}
	}
	l := &layers{assembly: a, request: r, fs: fs}
	defer l.release()
	if err := l.addLowers(); err != nil {
		return -1, err
	}
	if o.upper != "" {
		if err := l.addWritable(); err != nil {
			return -1, err
		}
	}
	if err := a.configure(r, fs); err != nil {
		return -1, err
	}
	if err := a.create(fs); err != nil {
		return -1, l.createError(err)
	}
	mount, err = a.fsmount(fs, r.attrs)
	if err != nil {
		return -1, r.fail("fsmount", "", err)
	}
	a.stats.Mounts++
	if o.upper == "" || r.readOnly {
		return mount, nil
	}
	readOnly, err := a.readOnly(mount)
	if err == nil && readOnly {
		err = fmt.Errorf("overlayfs came up read-only: it could not use the work directory %s", o.work)
	}
	if err != nil {
		a.close(mount)
		return -1, r.fail("check", "", err)
	}
	return mount, nil
}

// createError explains what overlayfs says in the ring buffer only.
func (l *layers) createError(err error) error {
	e := l.request.fail("fsconfig create", "", err)
	e.Log = l.contextLog(l.fs)
	o := l.request.overlay
	if !errors.Is(err, unix.EINVAL) {
		return e
	}
	dirty := filepath.Join(o.work, "work", "incompat", "volatile")
	if _, statErr := os.Lstat(dirty); o.work != "" && statErr == nil {
		e.Err = fmt.Errorf("%w: %s is left from a volatile mount that may have lost writes", err, dirty)
		return e
	}
	if len(l.clones) > 0 && e.Log == "" {
		// Up to Linux 6.14 a layer on a detached mount is refused so. Other
		// causes look the same; mounting in another way tells them apart.
		e.Kind = ErrUnsupported
	}
	return e
}
