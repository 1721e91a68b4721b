package rootfs

import (
	"errors"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// maxLowers is overlayfs' OVL_MAX_STACK, the same in all versions.
const maxLowers = 500

// overlay is what an overlay mount's options name.
type overlay struct {
	lowers      []string // topmost first, data-only layers last
	dataOnly    int      // how many of lowers are data-only
	upper, work string   // both or neither
	list        string   // lowers as they were given, if all are absolute and clean
	number      int      // of list in a [BaseCache], which has seen it: lowers is nil before split
}

// parseOverlay moves the directories out of r.data. overlayfs reports most
// contradictions only in the kernel's ring buffer, so they are found here. A
// list of lower directories that has a number is not looked at.
func (r *request) parseOverlay(list int) error {
	o := &overlay{}
	if r.has("lowerdir") && (r.has("lowerdir+") || r.has("datadir+")) {
		return r.invalid("lowerdir", "together with lowerdir+ or datadir+")
	}
	var lowers, dataOnly []string
	rest := r.data[:0:0]
	for _, d := range r.data {
		var err error
		switch d.key {
		case "lowerdir":
			if lowers != nil || o.number != 0 {
				return r.invalid(d.key, "given more than once")
			}
			if o.number = list; list != 0 {
				o.list = d.value
				break
			}
			var ok bool
			if lowers, ok = splitClean(d.value); ok {
				o.list = d.value
			} else {
				lowers, dataOnly, err = splitLowers(d.value)
			}
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
	case lowers == 0 && o.number == 0:
		return r.invalid("lowerdir", "no lower directory")
	case len(o.lowers) > maxLowers:
		return r.invalid("lowerdir", "%d lower directories, overlayfs takes %d", len(o.lowers), maxLowers)
	case (o.upper == "") != (o.work == ""):
		return r.invalid("upperdir, workdir", "one without the other")
	case o.upper == "" && len(o.lowers) < 2 && o.number == 0:
		return r.invalid("lowerdir", "a single lower directory and no upper one is a bind mount")
	}
	for i, lower := range o.lowers {
		if o.list != "" {
			break
		}
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

// split gives a list with a number its lowers.
func (o *overlay) split() {
	if o.lowers == nil {
		o.lowers = strings.Split(o.list, ":")
	}
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

// splitClean cuts a list of lower directories that is as containerd writes it:
// cleaned absolute paths, nothing escaped, no data-only layers. It looks once
// at the directory that the names begin with, which matters for hundreds of
// layers.
func splitClean(s string) (lowers []string, ok bool) {
	if strings.Contains(s, `\`) {
		return nil, false
	}
	lowers = strings.Split(s, ":")
	parent := path.Dir(path.Dir(lowers[0]))
	for i, lower := range lowers {
		rest := lower
		if i > 0 && parent != "/" && strings.HasPrefix(lower, parent) {
			rest = lower[len(parent):]
		}
		if !isClean(rest) {
			return nil, false
		}
	}
	return lowers, true
}

// isClean reports whether each name of an absolute path is preceded by one
// slash, and begins with something else than a dot.
func isClean(p string) bool {
	if len(p) < 2 || p[0] != '/' || p[len(p)-1] == '/' {
		return false
	}
	for i := 1; i < len(p); i++ {
		if p[i-1] == '/' && (p[i] == '/' || p[i] == '.') {
			return false
		}
	}
	return true
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
