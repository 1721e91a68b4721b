package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// The transforms of containerd's mount manager, which precede a mount's type
// as in "format/mkdir/overlay" and apply in that order, and their options.
const (
	transformFormat = "format"
	transformMkdir  = "mkdir"
	transformMkfs   = "mkfs"

	optionMkdir  = "X-containerd.mkdir."
	optionMkfs   = "X-containerd.mkfs."
	optionVerity = "X-containerd.dmverity="
)

const (
	typeErofs   = "erofs"
	typeLoop    = "loop"
	typeOverlay = "overlay"
)

// ErrVerity means that a layer is to be checked by dm-verity. containerd can
// do that where it mounts the layers itself.
var ErrVerity = errors.New("dm-verity is not supported for layers that the shim mounts")

// Claims are the mount types and transforms that containerd may leave to
// Assemble instead of its mount manager (containerd, docs/shim-capabilities.md).
func Claims() (types, transforms []string) {
	return []string{typeErofs, typeLoop}, []string{transformFormat, transformMkdir, transformMkfs}
}

// preparation is what must be there before a mount can be made.
type preparation interface {
	prepare(a *assembly, r *request) error
}

const (
	defaultMkdirMode = 0o700
	noOwner          = -1
)

// directory is one that is made if it does not exist.
type directory struct {
	place
	mode     os.FileMode
	uid, gid int // noOwner if not given
}

// image is a file with a file system that is made if it does not exist.
type image struct {
	place
	fs, uuid string
	size     int64 // bytes
}

// place is a path strictly below a directory that may be changed.
type place struct{ root, name string }

// transform applies what precedes the type of m. It changes nothing yet:
// preparations are due before the mount.
func (m Mount) transform(before []earlier) (_ Mount, due []preparation, err error) {
	given := m
	for {
		name, rest, ok := strings.Cut(m.Type, "/")
		if !ok {
			break
		}
		m.Type = rest
		var more []preparation
		switch name {
		case transformFormat:
			m, err = m.format(before)
		case transformMkdir:
			m, more, err = m.directories()
		case transformMkfs:
			m, more, err = m.image()
		default:
			err = fmt.Errorf("no such transform: %q", name)
		}
		if err != nil {
			return m, nil, given.invalid("", "%w", err)
		}
		due = append(due, more...)
	}
	for _, o := range m.Options {
		if strings.HasPrefix(o, optionVerity) {
			e := given.fail("check", o, ErrVerity)
			return m, nil, e
		}
	}
	return m, due, nil
}

// format expands the templates of m.
func (m Mount) format(before []earlier) (Mount, error) {
	var err error
	if m.Source, err = expand(m.Source, before); err != nil {
		return m, err
	}
	if m.Target, err = expand(m.Target, before); err != nil {
		return m, err
	}
	m.Options = slices.Clone(m.Options)
	for i, o := range m.Options {
		if m.Options[i], err = expand(o, before); err != nil {
			return m, err
		}
	}
	return m, nil
}

// takeOptions parts the options that begin with prefix from the others.
func (m Mount) takeOptions(prefix string) (rest Mount, taken []string) {
	rest = m
	rest.Options = nil
	for _, o := range m.Options {
		if value, ok := strings.CutPrefix(o, prefix); ok {
			taken = append(taken, value)
		} else {
			rest.Options = append(rest.Options, o)
		}
	}
	return rest, taken
}

func (m Mount) directories() (Mount, []preparation, error) {
	m, values := m.takeOptions(optionMkdir)
	var due []preparation
	for _, value := range values {
		d, err := parseDirectory(value)
		if err != nil {
			return m, nil, fmt.Errorf("%s%s: %w", optionMkdir, value, err)
		}
		due = append(due, d)
	}
	return m, due, nil
}

// parseDirectory parses "path=<path>[:<octal mode>[:<uid>:<gid>]]".
func parseDirectory(s string) (directory, error) {
	d := directory{mode: defaultMkdirMode, uid: noOwner, gid: noOwner}
	value, ok := strings.CutPrefix(s, "path=")
	if !ok {
		return d, errors.New("not path=")
	}
	parts := strings.Split(value, ":")
	if len(parts) == 3 || len(parts) > 4 {
		return d, errors.New("not path, path:mode or path:mode:uid:gid")
	}
	if len(parts) > 1 {
		mode, err := strconv.ParseUint(parts[1], 8, 32)
		if err != nil || mode&^uint64(os.ModePerm) != 0 {
			return d, fmt.Errorf("mode %q is not octal permission bits", parts[1])
		}
		d.mode = os.FileMode(mode)
	}
	if len(parts) == 4 {
		uid, err := parseID(parts[2])
		if err != nil {
			return d, fmt.Errorf("uid: %w", err)
		}
		gid, err := parseID(parts[3])
		if err != nil {
			return d, fmt.Errorf("gid: %w", err)
		}
		if uid == endOfIDs || gid == endOfIDs {
			return d, errors.New("no such owner")
		}
		d.uid, d.gid = int(uid), int(gid)
	}
	var err error
	d.place, err = changeable(parts[0])
	return d, err
}

func (m Mount) image() (Mount, []preparation, error) {
	m, values := m.takeOptions(optionMkfs)
	f := image{fs: "ext4"}
	for _, value := range values {
		key, value, _ := strings.Cut(value, "=")
		var err error
		switch key {
		case "size":
			f.size, err = parseSize(value)
		case "fs":
			if f.fs = value; !slices.Contains([]string{"ext2", "ext3", "ext4", "xfs"}, value) {
				err = errors.New("none of ext2, ext3, ext4, xfs")
			}
		case "uuid":
			f.uuid = value
			if value == "" || strings.Trim(value, "0123456789abcdefABCDEF-") != "" || value[0] == '-' {
				err = errors.New("not a UUID")
			}
		default:
			err = errors.New("no such option")
		}
		if err != nil {
			return m, nil, fmt.Errorf("%s%s=%s: %w", optionMkfs, key, value, err)
		}
	}
	if f.size == 0 {
		return m, nil, fmt.Errorf("%ssize is missing", optionMkfs)
	}
	var err error
	f.place, err = changeable(m.Source)
	return m, []preparation{f}, err
}

// maxImage is the largest file that ext4 can hold, in bytes: larger images
// could not be made anyway.
const maxImage = 16 << 40

// parseSize parses a number of bytes with an optional binary unit, such as
// 64MiB, 64m or 67108864.
func parseSize(s string) (int64, error) {
	end := strings.LastIndexAny(s, "0123456789") + 1
	number, unit := s[:end], strings.ToLower(strings.TrimPrefix(s[end:], " "))
	shift := 0
	if unit != "" && unit != "b" {
		unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
		i := strings.Index("kmgtp", unit)
		if len(unit) != 1 || i < 0 {
			return 0, errors.New("no such unit")
		}
		shift = 10 * (i + 1)
	}
	if number == "" || strings.Trim(number, "0123456789.") != "" {
		return 0, errors.New("not a size")
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, errors.New("not a size")
	}
	if f *= float64(uint64(1) << shift); f < 1 || f > maxImage {
		return 0, fmt.Errorf("not between 1 and %d bytes", int64(maxImage))
	}
	return int64(f), nil
}

// pluginDir is how the names of the directories begin that containerd gives
// to its plugins, all in its root directory.
const pluginDir = "io.containerd."

// changeable checks that p lies strictly below a directory in which files may
// be made: an earlier mount, or one of containerd's plugins. containerd allows
// its whole root directory, which a shim is not told.
func changeable(p string) (place, error) {
	if !path.IsAbs(p) || path.Clean(p) != p {
		return place{}, fmt.Errorf("%q is not a clean absolute path", p)
	}
	if n, rest, ok := cutMountName(p); ok && rest != "" {
		return place{root: mountName(n), name: rest}, nil
	}
	parts := strings.Split(p, "/")
	i := slices.IndexFunc(parts, func(s string) bool { return len(s) > len(pluginDir) && strings.HasPrefix(s, pluginDir) })
	if i < 0 || i == len(parts)-1 {
		return place{}, fmt.Errorf("%q is neither below an earlier mount nor below the directory of a plugin of containerd", p)
	}
	return place{root: strings.Join(parts[:i+1], "/"), name: strings.Join(parts[i+1:], "/")}, nil
}
