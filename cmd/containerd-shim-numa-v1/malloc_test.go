package main

import (
	"errors"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

// arenas counts glibc's arenas beside the first. An arena begins at a multiple
// of its largest size, with what is in use of it; the rest is reserved.
func arenas(t *testing.T) (n int) {
	t.Helper()
	const size = 64 << 20 // glibc's HEAP_MAX_SIZE on 64 bits
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	anonymous := regexp.MustCompile(`(?m)^([0-9a-f]+)-([0-9a-f]+) (....) 0+ 00:00 0 *$`)
	var begin uint64 // of the mapping before, if an arena may begin there
	for _, m := range anonymous.FindAllSubmatch(maps, -1) {
		from, err1 := strconv.ParseUint(string(m[1]), 16, 64)
		to, err2 := strconv.ParseUint(string(m[2]), 16, 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if string(m[3]) == "---p" && begin != 0 && to == begin+size {
			n++
		}
		begin = 0
		if string(m[3]) == "rw-p" && from%size == 0 {
			begin = from
		}
	}
	return n
}

// Go's C code frees memory as it starts a thread, for which the thread would
// get an arena. The race detector has one already.
func TestThreadsHaveNoArenas(t *testing.T) {
	const threads = 16 // more than there are already
	before := arenas(t)
	var running, ended sync.WaitGroup
	release := make(chan struct{})
	for range threads {
		running.Add(1)
		ended.Go(func() {
			runtime.LockOSThread() // and so a thread of its own
			running.Done()
			<-release
		})
	}
	running.Wait()
	after := arenas(t)
	close(release)
	ended.Wait()
	if after > before {
		t.Errorf("%d arenas, %d before there were threads", after, before)
	}
}
