package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userNSProcess is the name of the process that a namespace is made with.
const userNSProcess = "userns"

// UserNSCache keeps descriptors of user namespaces by their mapping: making
// one costs more than assembling a root filesystem. The zero value is ready
// for use, by any number of goroutines. It keeps at most 16 mappings, the
// latest ones.
type UserNSCache struct{ fileCache }

// Get gives a descriptor of a user namespace with the mapping ids. The caller
// closes it. Concurrent calls for one mapping make one namespace.
func (c *UserNSCache) Get(ctx context.Context, ids IDMap) (*os.File, error) {
	return c.get(ctx, ids.String(), func() (*os.File, error) { return newUserNS(ids) })
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

// userNSFork lets one child at a time wait for its mapping. It waits on a pipe,
// whose end tells it that this process is dead. Two children at once would each
// hold the other's end, and if this process is killed then, both would wait
// for ever: the parent-death signal is not set that early.
var userNSFork sync.Mutex

// newUserNS makes a user namespace. The kernel gives one an identity only
// with a process, so a child is cloned into it. It is traced, hence stops at
// the exec of this program before a single instruction of it runs, holds no
// descriptor, and is killed at once. Should this process die first, the
// parent-death signal ends the child; as that fires when the *thread* that
// started it ends, the thread is kept meanwhile.
func newUserNS(ids IDMap) (*os.File, error) {
	userNSFork.Lock()
	defer userNSFork.Unlock()
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
