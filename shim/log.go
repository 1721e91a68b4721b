package shim

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// logName is the FIFO in the bundle that containerd reads the log from.
const logName = "log"

// openLog makes the log FIFO the process's standard error, so that what the
// Go runtime says of a panic reaches containerd as well, and returns a writer
// to it. Without a FIFO, what is standard error now is written to.
//
// The FIFO is opened for reading too: so opening does not need containerd,
// writing never raises EPIPE, and what was written while containerd was down
// is read by the next one. It is non-blocking, for the Go runtime's own writes
// as well: a panic that waited for containerd would be a daemon that hangs.
func openLog() (*logWriter, error) {
	w := &logWriter{fd: int(os.Stderr.Fd())}
	fd, err := unix.Open(logName, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return w, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open log FIFO: %w", err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, fmt.Errorf("open log FIFO: stat: %w", err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		return w, nil
	}
	if err := unix.Dup3(fd, w.fd, unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make log FIFO the standard error: %w", err)
	}
	return w, nil
}

// logWriter writes whole entries to a non-blocking descriptor and drops them
// when it would block.
type logWriter struct {
	fd int

	mu      sync.Mutex // guards what follows; held for one write(2)
	dropped int        // entries since the last that went through
	torn    bool       // the last entry lacks its end
}

// Write takes one entry. It reports success even if the entry was dropped:
// there is nobody to tell but the same log, which is told with the next entry
// that goes through.
func (w *logWriter) Write(entry []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dropped > 0 {
		if !w.put(fmt.Appendf(nil, "time=%q level=warning msg=\"log was full, entries dropped\" count=%d\n",
			time.Now().Format(log.RFC3339NanoFixed), w.dropped)) {
			w.dropped++
			return len(entry), nil
		}
		w.dropped = 0
	}
	if !w.put(entry) {
		w.dropped++
	}
	return len(entry), nil
}

// put writes an entry and tells whether it went through, at least in part.
func (w *logWriter) put(entry []byte) bool {
	if w.torn {
		entry = append([]byte{'\n'}, entry...)
	}
	for {
		n, err := unix.Write(w.fd, entry)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false
		}
		w.torn = n < len(entry)
		return true
	}
}

// waitRoom waits until an entry would go through, or the time is over.
func (w *logWriter) waitRoom(limit time.Duration) {
	fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLOUT}}
	_, _ = unix.Poll(fds, int(limit.Milliseconds()))
}

const (
	dumpInitial = 64 << 10 // bytes
	dumpLimit   = 64 << 20
	dumpPause   = 10 * time.Millisecond
	dumpPauses  = 100 // so that a dump nobody reads ends after a second
)

// dumpGoroutines logs every goroutine, one entry each: an entry with all of
// them would not fit in the FIFO.
func dumpGoroutines(logger *log.Entry, w *logWriter) {
	stacks := make([]byte, dumpInitial)
	for {
		n := runtime.Stack(stacks, true)
		if n < len(stacks) || len(stacks) >= dumpLimit {
			stacks = stacks[:n]
			break
		}
		stacks = make([]byte, 2*len(stacks))
	}
	pauses := 0
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if before := time.Now(); pauses < dumpPauses {
			w.waitRoom(dumpPause)
			if time.Since(before) >= dumpPause {
				pauses++
			}
		}
		logger.Info(stack)
	}
}
