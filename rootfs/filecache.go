package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// fileCacheSize is how many files a cache keeps. A shim serves one pod, whose
// containers share a mapping and are of a handful of images.
const fileCacheSize = 16

// fileCache keeps the latest 16 descriptors of what is expensive to make. The
// zero value is ready for use, by any number of goroutines.
type fileCache struct {
	mu      sync.Mutex
	closed  bool
	entries map[string]*cachedFile
	order   []string // keys of entries, oldest first
}

type cachedFile struct {
	done chan struct{} // closed when file is set or the entry was dropped
	file *os.File
}

// get gives the file of key, which the caller closes. It is made by open if
// there is none; concurrent calls make one.
func (c *fileCache) get(ctx context.Context, key string, open func() (*os.File, error)) (*os.File, error) {
	for {
		entry, mine, err := c.entry(key)
		if err != nil {
			return nil, err
		}
		if mine {
			file, err := open()
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
func (c *fileCache) entry(key string) (entry *cachedFile, mine bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false, errors.New("cache is closed")
	}
	if e := c.entries[key]; e != nil {
		return e, false, nil
	}
	if c.entries == nil {
		c.entries = make(map[string]*cachedFile)
	}
	if len(c.order) >= fileCacheSize {
		c.drop(c.order[0])
	}
	e := &cachedFile{done: make(chan struct{})}
	c.entries[key] = e
	c.order = append(c.order, key)
	return e, true, nil
}

// fill completes an entry. If it was dropped meanwhile, the file is the
// caller's alone.
func (c *fileCache) fill(key string, entry *cachedFile, file *os.File, err error) (*os.File, error) {
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

// drop forgets a file. c.mu is held.
func (c *fileCache) drop(key string) {
	if e := c.entries[key]; e.file != nil {
		_ = e.file.Close()
	}
	delete(c.entries, key)
	c.order = slices.DeleteFunc(c.order, func(k string) bool { return k == key })
}

// Close releases all files; nothing can be had from the cache from then on.
func (c *fileCache) Close() error {
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
