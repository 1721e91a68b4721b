package main

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxEach bounds how many root filesystems a process has at a time.
const maxEach = 16

// phase is what the workers are to do.
type phase uint32

const (
	begin    phase = iota // nothing: say that you are there
	makeAll               // make root filesystems, one after another
	takeAway              // take them away
	end
)

// span is from beginning to end, in nanoseconds of CLOCK_MONOTONIC.
type span struct{ from, to int64 }

// board is the memory that a crew shares. The workers sleep on gate until it
// changes, all at once; the last of them wakes the crew's owner, who sleeps on
// done. Only between the two does anybody write to the rest.
type board struct {
	gate, done, failed atomic.Uint32
	phase              phase
	way, layers        int32 // indexes
	mapped             bool
	each               int32
}

// line is one worker's results.
type line struct {
	made, removed [maxEach]span
}

const (
	boardSize = int(unsafe.Sizeof(board{})+63) &^ 63 // lines begin with a cache line
	lineSize  = int(unsafe.Sizeof(line{}))
)

// mapBoard maps the shared memory f of a crew of n.
func mapBoard(f *os.File, n int) (*board, []line, error) {
	memory, err := unix.Mmap(int(f.Fd()), 0, boardSize+n*lineSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map shared memory: %w", err)
	}
	lines := unsafe.Slice((*line)(unsafe.Pointer(&memory[boardSize])), n)
	return (*board)(unsafe.Pointer(&memory[0])), lines, nil
}

// futex operations, of linux/futex.h: memory that processes share.
const (
	futexWait = 0
	futexWake = 1
)

// sleep returns when *word is not value any more, or woken up, or after the
// timeout.
func sleep(word *atomic.Uint32, value uint32, timeout time.Duration) error {
	ts := unix.NsecToTimespec(int64(timeout))
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWait, uintptr(value), uintptr(unsafe.Pointer(&ts)), 0, 0)
	switch errno {
	case 0, unix.EAGAIN, unix.EINTR:
		return nil
	}
	return os.NewSyscallError("futex", errno)
}

func wake(word *atomic.Uint32, n int) {
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWake, uintptr(n), 0, 0, 0)
}

// workerPatience is how long a worker waits for something to do, and
// ownerPatience an owner for its workers.
const (
	workerPatience = 10 * time.Minute
	ownerPatience  = 3 * time.Minute
)

// await waits until word is value.
func await(word *atomic.Uint32, value uint32, patience time.Duration) error {
	until := time.Now().Add(patience)
	for now := word.Load(); now != value; now = word.Load() {
		left := time.Until(until)
		if left <= 0 {
			return fmt.Errorf("not %d but %d after %s", value, now, patience)
		}
		if err := sleep(word, now, left); err != nil && !errors.Is(err, unix.ETIMEDOUT) {
			return err
		}
	}
	return nil
}

// clock is the time that all processes share, in nanoseconds.
func clock() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // fails for a bad address only
	return ts.Nano()
}
