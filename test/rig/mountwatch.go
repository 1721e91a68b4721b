package rig

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPollMillis bounds how long a watch that is being stopped still sleeps.
const mountPollMillis = 50

// MountWatch counts what a program like systemd, which follows the host's
// mount table, is woken up for.
type MountWatch struct {
	table   int // mountinfo, opened here: a Go file's poller would swallow the events
	initial int
	stop    chan struct{}
	done    chan MountActivity
}

// MountActivity is what happened to the mount table during a watch.
type MountActivity struct {
	Wakeups int // times the kernel reported a change; changes in quick succession may share one
	Peak    int // most entries more than at the beginning
	Left    int // entries more at the end than at the beginning
}

// WatchMounts starts counting. The kernel reports a change of
// /proc/self/mountinfo as POLLPRI (proc_pid_mountinfo(5), poll(2)).
func WatchMounts() (*MountWatch, error) {
	const path = "/proc/self/mountinfo"
	table, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("watch mount table: open %s: %w", path, err)
	}
	w := &MountWatch{table: table, initial: len(MountTable()), stop: make(chan struct{}), done: make(chan MountActivity)}
	go w.run()
	return w, nil
}

func (w *MountWatch) run() {
	var a MountActivity
	for stopping := false; ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.table), Events: unix.POLLPRI}}, mountPollMillis)
		if err == nil && n > 0 {
			a.Wakeups++
			a.Peak = max(a.Peak, len(MountTable())-w.initial)
			continue
		}
		if stopping {
			a.Left = len(MountTable()) - w.initial
			w.done <- a
			return
		}
		select {
		case <-w.stop:
			stopping = true
		default:
		}
	}
}

// Stop ends the watch and says what it saw.
func (w *MountWatch) Stop() MountActivity {
	close(w.stop)
	a := <-w.done
	unix.Close(w.table)
	return a
}

// CountMounts counts the table's entries whose line contains part.
func CountMounts(part string) int {
	n := 0
	for _, line := range MountTable() {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}
