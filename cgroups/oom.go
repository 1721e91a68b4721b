package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The files that count OOM kills, on v1 and on v2, and their key in both.
const (
	oomControl   = "memory.oom_control"
	memoryEvents = "memory.events"
	oomKill      = "oom_kill"
)

// After an event the counter is read again in growing intervals, for a while:
// v1 tells of an OOM before it kills, and v2 tells of much else, which this
// keeps from waking us each time.
const (
	recheckFirst = time.Millisecond
	recheckMax   = 100 * time.Millisecond
	recheckFor   = time.Second
)

// OOMWatch watches the OOM kills in a container, with one goroutine that waits
// in the runtime's poller.
type OOMWatch struct {
	notify func()
	// events is the eventfd of v1 or the inotify of v2.
	events *os.File
	// counterFD is the counting file, open for the last read.
	counterFD int
	// nested is the directory on v1, whose counter leaves out the cgroups
	// below it; empty on v2.
	nested string

	stopping chan struct{}
	ended    chan struct{} // closed by the goroutine, which owns the rest until then
	seen     uint64        // kills that notify was called for
	// pending is set while an event of v1 has not shown in the counter.
	pending bool

	stopOnce sync.Once
	missed   bool
}

// WatchOOM calls notify, from a goroutine of its own, each time that processes
// in the container have been killed for want of memory: once for kills that
// happen together. Kills from before are not told of, so call it before the
// container runs. An OOM of a parent cgroup counts only if its victim was in
// this container.
//
// notify should be quick and must not call Stop. The caller ends the watch
// with Stop. The error wraps fs.ErrNotExist if the cgroup has no memory
// controller or is gone.
func WatchOOM(c *Cgroup, notify func()) (*OOMWatch, error) {
	w := &OOMWatch{notify: notify, stopping: make(chan struct{}), ended: make(chan struct{})}
	dir, counter := c.dirs[unified], memoryEvents
	if !c.v2 {
		dir, counter = c.dirs["memory"], oomControl
		w.nested = dir
	}
	if dir == "" {
		return nil, fmt.Errorf("watch OOM kills: no memory controller: %w", os.ErrNotExist)
	}
	file := filepath.Join(dir, counter)
	var err error
	if w.counterFD, err = open(file, unix.O_RDONLY); err != nil {
		return nil, fmt.Errorf("watch OOM kills: %w", err)
	}
	if c.v2 {
		w.events, err = watchFile(file)
	} else {
		w.events, err = subscribe(dir, w.counterFD)
	}
	if err == nil {
		// Counted after the subscription: what comes in between is seen.
		if w.seen, err = w.count(); err != nil {
			w.events.Close()
		}
	}
	if err != nil {
		unix.Close(w.counterFD)
		return nil, fmt.Errorf("watch OOM kills in %s: %w", dir, err)
	}
	go w.run()
	return w, nil
}

// subscribe returns an eventfd that becomes readable at every OOM in dir or
// above it, and when dir is removed: kernel
// Documentation/admin-guide/cgroup-v1/memory.rst, section 10.
func subscribe(dir string, controlFD int) (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	events := os.NewFile(uintptr(fd), "eventfd:"+dir)
	request := strconv.Itoa(fd) + " " + strconv.Itoa(controlFD)
	if err := writeFile(filepath.Join(dir, "cgroup.event_control"), request); err != nil {
		events.Close()
		return nil, err
	}
	return events, nil
}

// watchFile returns an inotify descriptor that becomes readable when file
// changes.
func watchFile(file string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	events := os.NewFile(uintptr(fd), "inotify:"+file)
	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
		events.Close()
		return nil, &os.PathError{Op: "inotify_add_watch", Path: file, Err: err}
	}
	return events, nil
}

// run waits for events until Stop closes the descriptor.
func (w *OOMWatch) run() {
	defer close(w.ended)
	// Room for an eventfd's counter or some events of inotify; which they are
	// does not matter.
	buf := make([]byte, 16*unix.SizeofInotifyEvent)
	for {
		if _, err := w.events.Read(buf); err != nil {
			return
		}
		if !w.settle() {
			return
		}
	}
}

// settle reads the counter until it has grown, or an event can be taken to
// concern something else. It is false when the watch is over.
func (w *OOMWatch) settle() bool {
	deadline := time.Now().Add(recheckFor)
	for pause := recheckFirst; ; pause = min(2*pause, recheckMax) {
		grown, err := w.grown()
		if err != nil {
			return false // gone
		}
		if grown {
			w.notify()
			w.pending = false
			return true
		}
		w.pending = w.nested != ""
		if time.Now().After(deadline) {
			w.pending = false
			return true
		}
		select {
		case <-w.stopping:
			return false
		case <-time.After(pause):
		}
	}
}

// grown reports whether there were kills since it last said so.
func (w *OOMWatch) grown() (bool, error) {
	kills, err := w.count()
	if err != nil || kills <= w.seen {
		return false, err
	}
	w.seen = kills
	return true, nil
}

// count reads how many processes have been killed in the container. It fails
// if the cgroup was removed: an open descriptor does not outlive that.
func (w *OOMWatch) count() (uint64, error) {
	text, err := readFrom(w.counterFD)
	if err != nil {
		return 0, err
	}
	kills := parseKeyed(string(text))[oomKill]
	if w.nested == "" {
		return kills, nil
	}
	err = walk(w.nested, func(dir string) error {
		if dir == w.nested {
			return nil
		}
		text, err := readFile(filepath.Join(dir, oomControl))
		if err != nil && !isGone(err) {
			return err
		}
		kills += parseKeyed(string(text))[oomKill]
		return nil
	})
	return kills, err
}

// Stop ends the watch and reports whether there were kills that notify was not
// called for. Call it when init has exited, before its exit is published and
// before the cgroup is removed, so that an OOM right before the exit is not
// lost. notify is not called once Stop has returned; Stop may be called again,
// with the same answer.
//
// If the cgroup is gone already, as systemd may remove a scope at once, kills
// that had no event yet are unknown and reported as false.
func (w *OOMWatch) Stop() bool {
	w.stopOnce.Do(func() {
		close(w.stopping)
		w.events.Close()
		<-w.ended
		grown, err := w.grown()
		// On v1 an event was on its way to be confirmed by a counter that no
		// longer exists.
		w.missed = grown || errors.Is(err, unix.ENODEV) && w.pending
		unix.Close(w.counterFD)
	})
	return w.missed
}
