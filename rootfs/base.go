package rootfs

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// BaseCache keeps shared bases: for an image and an ID mapping, one read-only
// overlay of the image's layers, attached nowhere. Containers stack their
// writable layer on it as on a single one, so that what they cost does not
// depend on the number of layers. The price is a level of the two that
// overlayfs can be stacked (an overlay inside such a container must not have
// its lower directories on the root file system), and slower lookups. Layers
// must not change, and stay on disk as long as the cache has them; it keeps the
// latest 16. The zero value is ready for use, by any number of goroutines.
type BaseCache struct {
	fileCache
	lists listNumbers
}

// listNumbers gives numbers to the latest 16 lists of lower directories that
// were found to be in order. A list of hundreds of layers has tens of kB: a
// container on a base has it compared once and stands by its number from there
// on, so that it is neither checked nor cut, copied or hashed. That is safe
// since the text is the very same: what was checked and what is used cannot
// differ. A number never stands for another list.
type listNumbers struct {
	mu     sync.Mutex
	latest []numberedList // oldest first
	last   int            // number that was given
}

type numberedList struct {
	text   string
	number int // from 1 on
}

// of gives the number of a list, 0 if it has none.
func (l *listNumbers) of(list string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.find(list)
}

// find is of. l.mu is held.
func (l *listNumbers) find(list string) int {
	if i := slices.IndexFunc(l.latest, func(n numberedList) bool { return n.text == list }); i >= 0 {
		return l.latest[i].number
	}
	return 0
}

// give gives a number to a list that was checked, unless it has one.
func (l *listNumbers) give(list string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number := l.find(list); number != 0 {
		return number
	}
	if len(l.latest) == fileCacheSize {
		l.latest = slices.Delete(l.latest, 0, 1)
	}
	l.last++
	l.latest = append(l.latest, numberedList{list, l.last})
	return l.last
}

// overlayFromBase makes a detached overlay, on a shared base where there is a
// cache for it and it can serve.
func (a *assembly) overlayFromBase(r *request) (int, error) {
	if a.options.Base == nil || r.refers {
		return a.overlayDetached(r, nil)
	}
	if base := a.base(r); base != nil {
		fd, err := a.overlayDetached(r.onBase(), base)
		_ = base.Close()
		if err == nil {
			a.stats.Base = true
			return fd, nil
		}
	}
	r.overlay.split()
	return a.overlayDetached(r, nil)
}

// number gives the number of a list of lower directories that need not be
// looked at again, 0 for others.
func (c *BaseCache) number(list string) int {
	if c == nil {
		return 0
	}
	return c.lists.of(list)
}

// base gives the shared base that r can be stacked on, or nil. Why it cannot
// be made does not matter: the same layers are tried without it next.
func (a *assembly) base(r *request) *os.File {
	o := r.overlay
	topmost, _, several := strings.Cut(o.list, ":")
	if o.upper == "" || !several {
		return nil
	}
	options, ok := baseOptions(r.data)
	if !ok {
		return nil
	}
	identity, err := a.identity(topmost)
	if err != nil {
		return nil
	}
	mapping := ""
	if r.ids != nil {
		mapping = r.ids.String()
	}
	if o.number == 0 {
		o.number = a.options.Base.lists.give(o.list)
	}
	key := fmt.Sprint(o.number, identity, mapping, options)
	base, err := a.options.Base.get(a.ctx, key, func() (*os.File, error) {
		o.split()
		fd, err := a.overlayDetached(&request{
			Mount: Mount{Type: r.Type, Source: r.Source}, attrs: cloneAttrs, ids: r.ids, data: options,
			overlay: &overlay{lowers: o.lowers},
		}, nil)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), "mount:base"), nil
	})
	if err != nil {
		return nil
	}
	return base
}

// onBase is r for a base instead of its lower directories, which have been
// mapped already.
func (r *request) onBase() *request {
	onBase := *r
	onBase.ids = nil
	return &onBase
}

// baseOptions are the options of r that a base must share. Some others bind
// the upper layer to the lower ones, and make a base impossible.
func baseOptions(data []option) (shared []option, ok bool) {
	for _, o := range data {
		switch o.String() {
		case "index=off", "nfs_export=off", "metacopy=off", "redirect_dir=off", "redirect_dir=nofollow", "verity=off",
			"volatile", "fsync=volatile", "uuid=null", "uuid=off", "uuid=auto", "xino=off", "xino=auto":
			continue // of the container's own layer
		case "userxattr":
			shared = append(shared, o)
			continue
		}
		if !strings.HasSuffix(o.key, "context") {
			return nil, false
		}
		shared = append(shared, o)
	}
	return shared, true
}

// identity tells a layer from one that had the same name before.
func (c *calls) identity(layer string) (string, error) {
	var st unix.Statx_t
	err := c.do(func() error {
		return unix.Statx(unix.AT_FDCWD, layer, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_INO|unix.STATX_BTIME, &st)
	})
	return fmt.Sprint(st.Dev_major, st.Dev_minor, st.Ino, st.Btime.Sec, st.Btime.Nsec), err
}
