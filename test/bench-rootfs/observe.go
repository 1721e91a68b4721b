package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/rootfs"
	"containerd-shim-numa-v1/test/rig"
)

// fanotify_init(2) and fanotify_mark(2) for mount namespaces, Linux 6.14.
const (
	fanReportMnt = 0x4000
	fanMarkMntNS = 0x110
	fanMntAttach = 0x01000000
	fanMntDetach = 0x02000000
)

// tableWatch counts the changes of a mount table exactly.
type tableWatch struct{ fd int }

func watchTable() (*tableWatch, error) {
	fd, err := unix.FanotifyInit(fanReportMnt|unix.FAN_CLASS_NOTIF|unix.FAN_UNLIMITED_QUEUE|unix.FAN_NONBLOCK|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("fanotify_init: %w", err)
	}
	ns, err := os.Open("/proc/self/ns/mnt")
	if err == nil {
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|fanMarkMntNS, fanMntAttach|fanMntDetach, int(ns.Fd()), "")
		ns.Close()
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("fanotify_mark: %w", err)
	}
	return &tableWatch{fd}, nil
}

// changes gives the number of mounts attached or detached since the last call.
func (w *tableWatch) changes() (n int, err error) {
	buf := make([]byte, 1<<16)
	for {
		got, err := unix.Read(w.fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return n, nil
		case err != nil:
			return n, fmt.Errorf("read fanotify events: %w", err)
		}
		for rest := buf[:got]; len(rest) >= unix.FAN_EVENT_METADATA_LEN; {
			// struct fanotify_event_metadata: event_len at 0, mask at 8. An
			// event may say that a mount came and went.
			mask := binary.NativeEndian.Uint64(rest[8:])
			for _, bit := range []uint64{fanMntAttach, fanMntDetach} {
				if mask&bit != 0 {
					n++
				}
			}
			rest = rest[binary.NativeEndian.Uint32(rest):]
		}
	}
}

// count is what one root filesystem costs, whatever the machine does besides.
type count struct {
	syscalls int // until it is ready
	changes  int // of the host's mount table, until it is gone; -1 if unknown
}

// key is one case.
type key struct {
	way, layers int // index, number
	mapped      bool
}

// count makes one root filesystem in each way, counting, and gives the ways
// that this kernel can do.
func (h *host) count(ctx context.Context, layers []int) (ways []int, counts map[key]count, err error) {
	s, err := newShim(ctx)
	if err != nil {
		return nil, nil, err
	}
	at, err := h.container("count")
	if err != nil {
		return nil, nil, err
	}
	watch, watchErr := watchTable()
	if watchErr == nil {
		defer unix.Close(watch.fd)
	}
	counts = map[key]count{}
	for w, way := range allWays {
		can := true
		for _, n := range layers {
			for _, mapped := range []bool{true, false} {
				if mapped && !way.mapped || !mapped && !way.plain || !can {
					continue
				}
				c := count{changes: -1}
				for range 2 { // once to find all at hand
					m, err := way.make(s, newJob(at, h.image(n), mapped))
					if errors.Is(err, rootfs.ErrUnsupported) {
						fmt.Printf("\n%s: not on this kernel: %v\n", way.name, err)
						can = false
						break
					}
					if err == nil {
						err = m.remove()
					}
					if err != nil {
						return nil, nil, fmt.Errorf("%s, %d layers: %w", way.name, n, err)
					}
					c.syscalls = m.syscalls
					if watchErr == nil {
						if c.changes, err = watch.changes(); err != nil {
							return nil, nil, err
						}
					}
				}
				counts[key{w, n, mapped}] = c
			}
		}
		if can {
			ways = append(ways, w)
		}
	}
	return ways, counts, errors.Join(s.base.Close(), s.workshop.Close(), s.cache.Close(), s.userNS.Close())
}

// suffered is what a program that follows the mount table did.
type suffered struct {
	wakeUps int
	bytes   int64
	cpu     time.Duration
}

// follow reads the mount table whenever it changes, as systemd does, until
// stop is closed.
func follow(stop <-chan struct{}) (s suffered, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return s, err
	}
	defer unix.Close(fd)
	table := fdReader(fd)
	var content bytes.Buffer
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		return s, err
	}
	const pause = 20 // milliseconds until stop is looked at
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, pause)
		if err == nil && n > 0 {
			s.wakeUps++
			content.Reset()
			if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
				return s, err
			}
			read, err := io.Copy(&content, table)
			if err != nil {
				return s, err
			}
			s.bytes += read
			continue
		}
		select {
		case <-stop:
			err := unix.Getrusage(unix.RUSAGE_THREAD, &after)
			s.cpu = time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
			return s, err
		default:
		}
	}
}

// fdReader reads without Go's poller, which would take the events away.
type fdReader int

func (fd fdReader) Read(p []byte) (int, error) {
	n, err := unix.Read(int(fd), p)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

// readerLayers are those of the image that a reader's suffering is told for.
const readerLayers = 50

// suffering has each crew make root filesystems while somebody follows the
// mount table. It gives what that took per root filesystem, by number at once
// and way.
func (h *host) suffering(crews []*crew, ways []int, layers []int) (map[[2]int]suffered, error) {
	at := -1
	for i, n := range layers {
		if n == readerLayers {
			at = i
		}
	}
	if at < 0 {
		return nil, nil
	}
	all := map[[2]int]suffered{}
	for _, c := range crews {
		for _, w := range ways {
			way := allWays[w]
			stop := make(chan struct{})
			type result struct {
				suffered
				error
			}
			results := make(chan result)
			go func() {
				s, err := follow(stop)
				results <- result{s, err}
			}()
			_, err := c.round(w, at, way.mapped, each(w, c.n))
			close(stop)
			r := <-results
			if err := errors.Join(err, r.error); err != nil {
				return nil, fmt.Errorf("follow the mount table: %w", err)
			}
			all[[2]int{c.n, w}] = r.suffered
		}
	}
	if left := rig.CountMounts(tempMounts) + rig.CountMounts(targets); left > 0 {
		return nil, fmt.Errorf("%d mounts are left", left)
	}
	return all, nil
}
