package rootfs

import (
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// option is one parameter for the file system itself.
type option struct {
	key, value string
	flag       bool // no "=" was given
}

func (o option) String() string {
	if o.flag {
		return o.key
	}
	return o.key + "=" + o.value
}

// request is a Mount with its options sorted by who obeys them.
type request struct {
	Mount
	bind      bool
	recursive bool   // rbind
	attrs     uint64 // MOUNT_ATTR_* of the mount
	atime     bool   // attrs says which of the atime modes
	noatime   bool
	strict    bool     // strictatime
	readOnly  bool     // of the superblock too, unless bind
	super     []string // flags of the superblock, in order
	data      []option // for the file system
	loop      bool     // source is a file to be put behind a loop device
	directIO  bool     // of the loop device
	ids       *IDMap
	overlay   *overlay // if of that type
	due       []preparation
	refers    bool // to earlier mounts, by their names
}

// parse sorts the options of m and checks everything that can be checked
// without asking the kernel. Options are those of mount(8) as containerd
// writes them; of repeated flags the last counts. numbered gives the number of
// a list of lower directories that was checked before, 0 for others.
func parse(m Mount, numbered func(list string) int) (*request, error) {
	r := &request{Mount: m, bind: m.Type == "bind" || m.Type == "rbind", recursive: m.Type == "rbind"}
	if strings.ContainsRune(m.Type+m.Source+m.Target, 0) {
		return nil, m.invalid("", "NUL in type, source or target")
	}
	if strings.HasPrefix(m.Type, "fuse.") || strings.HasPrefix(m.Type, "fuse3.") {
		return nil, m.needsPath("a helper program mounts it by path")
	}
	var uids, gids string
	list := 0
	for _, o := range m.Options {
		if value, ok := strings.CutPrefix(o, "lowerdir="); ok && m.Type == typeOverlay {
			if n := numbered(value); n != 0 {
				list = n
				r.data = append(r.data, option{key: "lowerdir", value: value})
				continue
			}
		}
		if strings.ContainsRune(o, 0) {
			return nil, m.invalid(o, "NUL in option")
		}
		if value, ok := strings.CutPrefix(o, "uidmap="); ok {
			uids = value
			continue
		}
		if value, ok := strings.CutPrefix(o, "gidmap="); ok {
			gids = value
			continue
		}
		for _, word := range splitOption(o) {
			if err := r.word(word); err != nil {
				return nil, err
			}
		}
	}
	if (uids == "") != (gids == "") {
		return nil, m.invalid("uidmap, gidmap", "one without the other")
	}
	if uids != "" {
		ids, err := ParseIDMap(uids, gids)
		if err != nil {
			return nil, m.invalid("", "%w", err)
		}
		r.ids = &ids
	}
	switch {
	case r.bind:
		if !path.IsAbs(m.Source) {
			return nil, m.invalid("", "bind source is not an absolute path")
		}
	case m.Type == "":
		return nil, m.invalid("", "no file system type")
	case m.Type == typeOverlay:
		return r, r.parseOverlay(list)
	case r.loop && !path.IsAbs(m.Source):
		return nil, m.invalid("loop", "source is not an absolute path")
	}
	return r, nil
}

// word takes one option.
func (r *request) word(word string) error {
	switch {
	case word == "", word == "defaults":
	case strings.HasPrefix(word, "X-containerd."):
		return r.invalid(word, "should have been consumed by containerd's mount manager")
	case word == "remount":
		return r.invalid(word, "there is nothing to remount")
	case word == "bind":
		r.bind = true
	case word == "rbind":
		r.bind, r.recursive = true, true
	case word == "loop":
		r.loop = true
	case word == "direct-io":
		r.directIO = true
	case r.attribute(word):
	case slices.Contains([]string{"sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"}, word):
		r.super = append(r.super, word)
	default:
		key, value, ok := strings.Cut(word, "=")
		if key == "" {
			return r.invalid(word, "option without a name")
		}
		if strings.HasSuffix(key, "context") {
			value = unquote(value)
		}
		r.data = append(r.data, option{key: key, value: value, flag: !ok})
	}
	return nil
}

// attribute takes a flag of the mount itself (mount_setattr(2)).
func (r *request) attribute(word string) bool {
	switch word {
	case "ro":
		r.attrs, r.readOnly = r.attrs|unix.MOUNT_ATTR_RDONLY, true
	case "rw":
		r.attrs, r.readOnly = r.attrs&^unix.MOUNT_ATTR_RDONLY, false
	case "nosuid":
		r.attrs |= unix.MOUNT_ATTR_NOSUID
	case "suid":
		r.attrs &^= unix.MOUNT_ATTR_NOSUID
	case "nodev":
		r.attrs |= unix.MOUNT_ATTR_NODEV
	case "dev":
		r.attrs &^= unix.MOUNT_ATTR_NODEV
	case "noexec":
		r.attrs |= unix.MOUNT_ATTR_NOEXEC
	case "exec":
		r.attrs &^= unix.MOUNT_ATTR_NOEXEC
	case "nosymfollow":
		r.attrs |= unix.MOUNT_ATTR_NOSYMFOLLOW
	case "symfollow":
		r.attrs &^= unix.MOUNT_ATTR_NOSYMFOLLOW
	case "nodiratime":
		r.attrs |= unix.MOUNT_ATTR_NODIRATIME
	case "diratime":
		r.attrs &^= unix.MOUNT_ATTR_NODIRATIME
	case "noatime", "atime":
		r.noatime = word == "noatime"
		r.setAtime()
	case "strictatime", "nostrictatime":
		r.strict = word == "strictatime"
		r.setAtime()
	case "relatime", "norelatime": // what holds if the others do not
		r.setAtime()
	default:
		return false
	}
	return true
}

// setAtime chooses among the modes as mount(2) does among its flags, of which
// containerd gives it more than one: the strictest wins, not the last.
func (r *request) setAtime() {
	mode := uint64(unix.MOUNT_ATTR_RELATIME)
	switch {
	case r.strict:
		mode = unix.MOUNT_ATTR_STRICTATIME
	case r.noatime:
		mode = unix.MOUNT_ATTR_NOATIME
	}
	r.attrs, r.atime = r.attrs&^unix.MOUNT_ATTR__ATIME|mode, true
}

// splitOption cuts an option at commas, as mount(2) does with the joined
// string: not within double quotes (security contexts) and not behind a
// backslash (overlay's paths).
func splitOption(s string) []string {
	if !strings.Contains(s, ",") {
		return []string{s}
	}
	var words []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				words = append(words, s[start:i])
				start = i + 1
			}
		}
	}
	return append(words, s[start:])
}

// unquote strips the double quotes around a security context: mount(2) has
// them removed by the security module, fsconfig(2) has not.
func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}
