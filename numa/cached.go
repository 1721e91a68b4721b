package numa

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/numa/private"
)

const (
	cacheName = "topology"
	// cacheFormat changes whenever Discover makes something else of the same
	// machine.
	cacheFormat = 1
	// maxCacheFile bounds the file that is read back, in bytes: 8192 cores take
	// 1 MiB.
	maxCacheFile = 4 << 20
)

var errStale = errors.New("of another boot, or CPUs or nodes came or went")

// cacheEntry is the content of the file, as JSON.
type cacheEntry struct {
	Key      string
	Topology *Topology
}

// loadCached does as Discover does where p is online, but remembers the topology
// in a file in dir for as long as the boot and p are the same. In a dir that
// others can use nothing is read or written. The file is not trusted: whatever
// is wrong with it, the topology is discovered anew. That it cannot be written
// is not an error.
func (s *sysfs) loadCached(dir, bootID string, p presence) (*Topology, error) {
	path, key := filepath.Join(dir, cacheName), cacheKey(bootID, p)
	if t, err := readCache(path, key); err == nil && t.fits(p) && s.readMemory(t, p.memory) == nil {
		return t, nil
	}
	t, err := Discover(s.fsys)
	if err != nil {
		return nil, err
	}
	// Of a CPU that just came online the kernel does not tell the cache yet.
	if t.fits(p) && t.cachesTold() {
		_ = writeCache(path, cacheEntry{key, t}) // the next one discovers again
	}
	return t, nil
}

func cacheKey(bootID string, p presence) string {
	return fmt.Sprintf("%d boot %s cpus %s isolated %s nodes %s memory %s",
		cacheFormat, bootID, p.online, p.isolated, p.nodes, p.memory)
}

// fits tells whether t is of the CPUs and nodes that are there.
func (t *Topology) fits(p presence) bool {
	nodes := p.nodes
	if nodes.IsEmpty() {
		nodes = cpuset.Of(0)
	}
	var ids cpuset.Set
	for _, n := range t.Nodes {
		ids = ids.Union(cpuset.Of(n.ID))
	}
	return t.Online.Equal(p.online) && t.Isolated.Equal(p.isolated) && ids.Equal(nodes)
}

// cachesTold tells whether the caches of all cores are known, or of none.
func (t *Topology) cachesTold() bool {
	for _, c := range t.Cores {
		if (c.Cache < 0) != (len(t.Caches) == 0) {
			return false
		}
	}
	return true
}

func readCache(path, key string) (*Topology, error) {
	dir, err := private.OpenDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	f, err := openIn(dir, filepath.Base(path), unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 || int(owner.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s: not a file that only we write", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxCacheFile))
	if err != nil {
		return nil, err
	}
	return parseCache(text, key)
}

// openIn opens a file of a directory. O_NONBLOCK: a FIFO in its place must not
// hold us up.
func openIn(dir int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func parseCache(text []byte, key string) (*Topology, error) {
	var entry cacheEntry
	if err := json.Unmarshal(text, &entry); err != nil {
		return nil, err
	}
	if entry.Key != key || entry.Topology == nil {
		return nil, errStale
	}
	if err := entry.Topology.check(); err != nil {
		return nil, err
	}
	return entry.Topology, nil
}

// writeCache replaces the file. Two that write at once may mix their texts,
// which the hash tells; the name is always the same so that one who is killed
// leaves no more than one file.
func writeCache(path string, entry cacheEntry) error {
	text, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	dir, err := private.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	name := filepath.Base(path)
	fresh := name + ".new"
	f, err := openIn(dir, fresh, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = unix.Renameat(dir, fresh, dir, name)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, fresh, 0)
	}
	return err
}
