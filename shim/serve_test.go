package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// gone waits for a daemon's orderly end: no process, socket or record.
func (r *rig) gone(pid int, path, bundle string) {
	r.Helper()
	r.eventually("daemon ends", func() bool { return len(cmdline(pid)) < 2 })
	for _, name := range []string{path, bundle + "/address"} {
		if _, err := os.Lstat(name); !os.IsNotExist(err) {
			r.Errorf("%s is left: %v", name, err)
		}
	}
}

func TestUnattendedDaemonEnds(t *testing.T) {
	r := newRig(t)
	r.unattended = 300 * time.Millisecond
	bundle := r.bundle("c1", nil)
	log := r.fifo(bundle)
	path := r.mustStart("c1", nil)
	pid := r.daemon()
	expect(t, log, "no container and no connection")
	r.gone(pid, path, bundle)
}

func TestNeededDaemonStays(t *testing.T) {
	const limit = releaseDelay / 3
	r := newRig(t)
	r.unattended = limit
	bundle := r.bundle("c1", nil)
	path := r.mustStart("c1", nil)
	pid := r.daemon()
	alive := func(why string) {
		t.Helper()
		time.Sleep(3 * limit)
		if len(cmdline(pid)) < 2 {
			t.Fatalf("daemon ended while %s", why)
		}
	}
	c := r.client(path)
	r.call(c, "Release")
	alive("somebody was connected")
	r.call(c, "Hold")
	c.Close()
	alive("it held a container")
	// Its container ends while nobody is connected.
	c = r.client(path)
	r.call(c, "ReleaseSoon")
	c.Close()
	r.gone(pid, path, bundle)
}

func TestSignals(t *testing.T) {
	for _, end := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		t.Run(unix.SignalName(end), func(t *testing.T) {
			r := newRig(t)
			bundle := r.bundle("c1", nil)
			log := r.fifo(bundle)
			path := r.mustStart("c1", nil)
			pid := r.daemon()
			c := r.client(path)
			r.call(c, "Hold")
			send := func(s unix.Signal) {
				t.Helper()
				if err := unix.Kill(pid, s); err != nil {
					t.Fatal(err)
				}
			}
			send(unix.SIGHUP)
			send(unix.SIGPIPE)
			send(unix.SIGUSR1)
			if line := expect(t, log, "goroutine "); !strings.Contains(line, "runtime="+testRuntime) || !strings.Contains(line, "level=info") {
				t.Errorf("dump entry %q", line)
			}
			expect(t, log, "shim.ender.serve")
			send(end)
			expect(t, log, "ends once nothing runs")
			r.call(c, "Release")
			r.gone(pid, path, bundle)
		})
	}
}

// A host shuts down: the daemon's containers end, and nobody deletes them.
func TestTermWhileContainersEnd(t *testing.T) {
	r := newRig(t)
	bundle := r.bundle("c1", nil)
	path := r.mustStart("c1", nil)
	pid := r.daemon()
	c := r.client(path)
	r.call(c, "Hold")
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.call(c, "Exited")
	r.eventually("daemon ends", func() bool { return len(r.daemons()) == 0 })
	// delete has to find that the group needs it.
	r.eventually("socket refuses", func() bool {
		answer, err := dial(path)
		return err == nil && answer == refusing
	})
	if got := readFile(t, filepath.Join(bundle, addressName)); got != unixScheme+path {
		t.Errorf("address %q, want that of the socket", got)
	}
}

func TestTermIsForgotten(t *testing.T) {
	r := newRig(t)
	r.termMemory = time.Millisecond
	bundle := r.bundle("c1", nil)
	log := r.fifo(bundle)
	path := r.mustStart("c1", nil)
	c := r.client(path)
	r.call(c, "Hold")
	if err := unix.Kill(r.daemon(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect(t, log, "signal ignored")
	r.call(c, "Exited")
	// Longer than the daemon would need to find it out.
	time.Sleep(4 * termLook)
	r.call(c, "Hold")
}

func TestShutdownAnswers(t *testing.T) {
	r := newRig(t)
	bundle := r.bundle("c1", nil)
	path := r.mustStart("c1", nil)
	pid := r.daemon()
	r.call(r.client(path), "Shutdown")
	r.gone(pid, path, bundle)
}

// A daemon that ends must not take away what the next one listens on.
func TestEndLeavesNextDaemonAlone(t *testing.T) {
	r := newRig(t)
	r.bundle("c1", nil)
	path := r.mustStart("c1", nil)
	first := r.daemon()
	r.call(r.client(path), "Release") // it serves, and so knows its socket's file
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.mustStart("c1", nil)
	if err := unix.Kill(first, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.eventually("first daemon ends", func() bool { return len(r.daemons()) == 1 })
	r.call(r.client(path), "Hold")
}

func TestMemoryIsCollectedWhenNeeded(t *testing.T) {
	r := newRig(t)
	r.bundle("c1", nil)
	c := r.client(r.mustStart("c1", nil))
	memory := func() (collections, percent int) {
		t.Helper()
		time.Sleep(3 * testQuiet) // a call is not quiet
		var answer anypb.Any
		if err := c.Call(t.Context(), testService, "Memory", &emptypb.Empty{}, &answer); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(answer.TypeUrl, &collections, &percent); err != nil {
			t.Fatal(err)
		}
		return collections, percent
	}
	for range 2 {
		if collections, percent := memory(); collections != 0 || percent != firstGCPercent {
			t.Fatalf("%d collections, the next at %d %% of garbage, want none, and %d %%", collections, percent, firstGCPercent)
		}
	}
	r.call(c, "Collect")
	for deadline := time.Now().Add(time.Minute); ; {
		// The second is that which gives memory back.
		collections, percent := memory()
		if collections > 1 && percent == gcPercent {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d collections, the next at %d %% of garbage, want more than one, and %d %%", collections, percent, gcPercent)
		}
	}
}

func TestServiceThatFails(t *testing.T) {
	r := newRig(t)
	bundle := r.bundle("c1", nil)
	r.write(bundle+"/refuse", nil)
	log := r.fifo(bundle)
	path := r.mustStart("c1", nil)
	expect(t, log, "make the service: refused")
	r.eventually("daemon ends", func() bool { return len(r.daemons()) == 0 })
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("socket is left: %v", err)
	}
}

// Nobody reads the log, and the daemon goes on.
func TestFullLog(t *testing.T) {
	r := newRig(t)
	bundle := r.bundle("c1", nil)
	log := r.fifo(bundle)
	path := r.mustStart("c1", nil)
	pid := r.daemon()
	c := r.client(path)
	r.call(c, "Hold")
	fill(t, filepath.Join(bundle, logName))
	// Several signals may be one entry, but not all of them are.
	for range 100 {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		err := c.Call(ctx, testService, "Hold", &emptypb.Empty{}, &emptypb.Empty{})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	done, nudged := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(nudged)
		for {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
				_ = unix.Kill(pid, unix.SIGTERM) // the next entry tells
			}
		}
	}()
	expect(t, log, "entries dropped")
	close(done)
	<-nudged
}

// fill leaves no room in a FIFO that somebody has open for reading.
func fill(t *testing.T, fifo string) {
	t.Helper()
	fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	line := append(bytes.Repeat([]byte{'x'}, 4095), '\n')
	for size := len(line); size > 0; {
		switch _, err := unix.Write(fd, line[len(line)-size:]); {
		case errors.Is(err, unix.EAGAIN):
			size /= 2
		case err != nil && !errors.Is(err, unix.EINTR):
			t.Fatal(err)
		}
	}
}

// Events that wait for containerd are delivered before the daemon ends.
func TestShutdownDrainsEvents(t *testing.T) {
	r := newRig(t)
	bundle := r.bundle("c1", nil)
	path := r.mustStart("c1", nil)
	pid := r.daemon()
	r.call(r.client(path), "Exit")
	r.eventually("socket is removed first", func() bool { return !exists(path) })
	d := newDaemonEvents(t)
	d.path = r.address + ".ttrpc"
	d.start()
	r.gone(pid, path, bundle)
	if got := d.received(); !slices.Equal(got, []string{"c1"}) {
		t.Errorf("received %v", got)
	}
}

func TestLogWriter(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	size, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, os.Getpagesize())
	if err != nil {
		t.Fatal(err)
	}
	w := &logWriter{fd: fds[1]}
	write := func(s string) {
		t.Helper()
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	write(strings.Repeat("x", 2*size-1) + "\n") // larger than PIPE_BUF: torn
	write("lost\n")
	write("lost\n")
	buf := make([]byte, 4*size)
	if n, err := unix.Read(fds[0], buf); err != nil || n != size {
		t.Fatalf("read %d, %v", n, err)
	}
	write("next\n")
	n, err := unix.Read(fds[0], buf)
	if err != nil {
		t.Fatal(err)
	}
	got := string(buf[:n])
	if !strings.HasPrefix(got, "\ntime=") || !strings.HasSuffix(got, "dropped\" count=2\nnext\n") {
		t.Errorf("then wrote %q", got)
	}
}

func TestDaemonIsNotStoppedByMissingLog(t *testing.T) {
	r := newRig(t)
	bundle := r.bundle("c1", nil)
	r.write(bundle+"/log", []byte("a file, not a FIFO\n"))
	path := r.mustStart("c1", nil)
	r.call(r.client(path), "Hold")
	if got := readFile(t, bundle+"/log"); got != "a file, not a FIFO" {
		t.Errorf("log file now %q", got)
	}
	if got := readLink(t, fmt.Sprintf("/proc/%d/fd/2", r.daemon())); got != os.DevNull {
		t.Errorf("standard error is %s", got)
	}
}
