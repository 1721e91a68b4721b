package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userNSCacheSize is how many mappings a cache keeps. A shim serves one pod,
// whose containers share a mapping.
const userNSCacheSize = 16

// userNSProcess is the name of the process that a namespace is made with.
const userNSProcess = "userns"

// UserNSCache keeps descriptors of user namespaces by their mapping: making
// one costs more than assembling a root filesystem. The zero value is ready
// for use, by any number of goroutines. It keeps at most 16 mappings, the
// latest ones.
type UserNSCache struct {
	mu      sync.Mutex
	closed  bool
	entries map[string]*userNSEntry
	order   []string // keys of entries, oldest first
}

type userNSEntry struct {
	done chan struct{} // closed when file is set or the entry was dropped
	file *os.File
}

// Get gives a descriptor of a user namespace with the mapping ids. The caller
// closes it. Concurrent calls for one mapping make one namespace.
func (c *UserNSCache) Get(ctx context.Context, ids IDMap) (*os.File, error) {
	key := ids.String()
	for {
		entry, mine, err := c.entry(key)
		if err != nil {
			return nil, err
		}
		if mine {
			file, err := newUserNS(ids)
			return c.fill(key, entry, file, err)
		}
		select {
		case <-entry.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		c.mu.Lock()
		if c.entries[key] == entry {
			file, err := duplicate(entry.file)
			c.mu.Unlock()
			return file, err
		}
		c.mu.Unlock() // dropped meanwhile: start over
	}
}

// entry finds the entry of key, or adds one that the caller must fill.
func (c *UserNSCache) entry(key string) (entry *userNSEntry, mine bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false, errors.New("user namespace cache is closed")
	}
	if e := c.entries[key]; e != nil {
		return e, false, nil
	}
	if c.entries == nil {
		c.entries = make(map[string]*userNSEntry)
	}
	if len(c.order) >= userNSCacheSize {
		c.drop(c.order[0])
	}
	e := &userNSEntry{done: make(chan struct{})}
	c.entries[key] = e
	c.order = append(c.order, key)
	return e, true, nil
}

// fill completes an entry. If it was dropped meanwhile, the namespace is the
// caller's alone.
func (c *UserNSCache) fill(key string, entry *userNSEntry, file *os.File, err error) (*os.File, error) {
	defer close(entry.done)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[key] != entry {
		return file, err
	}
	if err != nil {
		c.drop(key)
		return nil, err
	}
	entry.file = file
	return duplicate(file)
}

// drop forgets a mapping. c.mu is held.
func (c *UserNSCache) drop(key string) {
	if e := c.entries[key]; e.file != nil {
		_ = e.file.Close()
	}
	delete(c.entries, key)
	c.order = slices.DeleteFunc(c.order, func(k string) bool { return k == key })
}

// Close releases all namespaces; Get fails from then on.
func (c *UserNSCache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for len(c.order) > 0 {
		c.drop(c.order[0])
	}
	return nil
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	runtime.KeepAlive(f)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// userNS gives a user namespace with the mapping that r asks for. The caller
// closes it.
func (a *assembly) userNS(r *request) (file *os.File, err error) {
	begin := time.Now()
	defer func() { a.stats.UserNS += time.Since(begin) }()
	if file := existingUserNS(a.options.UserNS, *r.ids); file != nil {
		return file, nil
	}
	if a.options.Cache != nil {
		file, err = a.options.Cache.Get(a.ctx, *r.ids)
	} else {
		file, err = newUserNS(*r.ids)
	}
	if err != nil {
		return nil, r.fail("user namespace", r.ids.String(), err)
	}
	return file, nil
}

// existingUserNS opens the namespace at nsPath if it has the mapping ids, and
// gives nil if not. The kernel shows the mapping of processes only, so nsPath
// must be that of a process, whose directory is opened first: it keeps the PID
// from meaning another process later. The process may be a container's and
// change its namespace at any moment, though never back to an outer one: if it
// is in the same one before and after, the mapping read in between is that
// namespace's.
func existingUserNS(nsPath string, ids IDMap) *os.File {
	process, ok := strings.CutSuffix(nsPath, "/ns/user")
	if !ok || path.Dir(process) != "/proc" {
		return nil
	}
	dir, err := os.Open(process)
	if err != nil {
		return nil
	}
	defer dir.Close()
	before, err := openAt(dir, "ns/user")
	if err != nil {
		return nil
	}
	uids, uidErr := readProcMap(dir, "uid_map")
	gids, gidErr := readProcMap(dir, "gid_map")
	after, err := openAt(dir, "ns/user")
	if err == nil {
		defer after.Close()
	}
	if uidErr == nil && gidErr == nil && err == nil && sameFile(before, after) &&
		(IDMap{UIDs: uids, GIDs: gids}).String() == ids.String() {
		return before
	}
	_ = before.Close()
	return nil
}

func openAt(dir *os.File, name string) (*os.File, error) {
	var c calls
	fd, err := c.open(int(dir.Fd()), name, unix.O_RDONLY, 0)
	runtime.KeepAlive(dir)
	if err != nil {
		return nil, fmt.Errorf("open %s of %s: %w", name, dir.Name(), err)
	}
	return os.NewFile(uintptr(fd), dir.Name()+"/"+name), nil
}

func readProcMap(dir *os.File, name string) ([]Extent, error) {
	f, err := openAt(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	return parseProcMap(string(text))
}

func sameFile(a, b *os.File) bool {
	x, xErr := a.Stat()
	y, yErr := b.Stat()
	return xErr == nil && yErr == nil && os.SameFile(x, y)
}

// newUserNS makes a user namespace. The kernel gives one an identity only
// with a process, so a child is cloned into it. It is traced, hence stops at
// the exec of this program before a single instruction of it runs, holds no
// descriptor, and is killed at once. Should this process die first, the
// parent-death signal ends the child; as that fires when the *thread* that
// started it ends, the thread is kept meanwhile.
func newUserNS(ids IDMap) (*os.File, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, err := os.StartProcess("/proc/self/exe", []string{userNSProcess}, &os.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: procIDMaps(ids.UIDs),
			GidMappings: procIDMaps(ids.GIDs),
			Ptrace:      true,
			Pdeathsig:   syscall.SIGKILL,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("start a process in a new user namespace: %w", err)
	}
	// The child is not waited for yet, so its PID is its own.
	file, openErr := os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Pid))
	killErr := child.Kill()
	_, waitErr := child.Wait()
	if err := errors.Join(openErr, killErr, waitErr); err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, fmt.Errorf("take over a new user namespace: %w", err)
	}
	return file, nil
}

func procIDMaps(extents []Extent) []syscall.SysProcIDMap {
	maps := make([]syscall.SysProcIDMap, len(extents))
	for i, e := range extents {
		maps[i] = syscall.SysProcIDMap{ContainerID: int(e.Container), HostID: int(e.Host), Size: int(e.Size)}
	}
	return maps
}
