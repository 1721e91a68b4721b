package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	repetitions = 50
	memoryLimit = "8388608" // bytes
	eatMemory   = "exec tail /dev/zero"
)

func watch(t *testing.T, c *Cgroup) (*OOMWatch, *atomic.Int64) {
	t.Helper()
	notified := new(atomic.Int64)
	w, err := WatchOOM(c, func() { notified.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Stop() })
	return w, notified
}

// runOOM runs a process in dir until the kernel kills it.
func runOOM(t *testing.T, dir string) {
	t.Helper()
	cmd := start(t, eatMemory, dir)
	cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the process was not killed: %v", cmd.ProcessState)
	}
}

// TestOOMIsToldOnce stops the watch as soon as the killed process is reaped, as
// the shim does: each OOM is told exactly once, by notify or by Stop.
func TestOOMIsToldOnce(t *testing.T) {
	byStop := 0
	for range repetitions {
		c, dirs := makeV1(t, "memory")
		write(t, filepath.Join(dirs["memory"], "memory.limit_in_bytes"), memoryLimit)
		w, notified := watch(t, c)
		runOOM(t, dirs["memory"])
		missed := w.Stop()
		told := notified.Load()
		if missed {
			told++
			byStop++
		}
		if told != 1 {
			t.Fatalf("told %d times, by Stop: %t", told, missed)
		}
		if w.Stop() != missed {
			t.Fatal("the second Stop disagrees with the first")
		}
	}
	t.Logf("%d of %d by Stop, the others by notify", byStop, repetitions)
}

func TestOOMIsNotified(t *testing.T) {
	c, dirs := makeV1(t, "memory")
	write(t, filepath.Join(dirs["memory"], "memory.limit_in_bytes"), memoryLimit)
	w, notified := watch(t, c)
	for kills := int64(1); kills <= 3; kills++ {
		runOOM(t, dirs["memory"])
		eventually(t, "notify is called", func() bool { return notified.Load() == kills })
	}
	if w.Stop() {
		t.Error("Stop reports what notify was called for")
	}
}

// TestLastReadNeedsNoEvent counts real OOM kills through a memory.events that
// never has an inotify event, since it is the control file of v1.
func TestLastReadNeedsNoEvent(t *testing.T) {
	for range repetitions {
		_, dirs := makeV1(t, "memory")
		write(t, filepath.Join(dirs["memory"], "memory.limit_in_bytes"), memoryLimit)
		v2 := t.TempDir()
		if err := os.Symlink(filepath.Join(dirs["memory"], oomControl), filepath.Join(v2, memoryEvents)); err != nil {
			t.Fatal(err)
		}
		w, notified := watch(t, load(t, map[string]string{unified: v2}))
		runOOM(t, dirs["memory"])
		if !w.Stop() || notified.Load() != 0 {
			t.Fatalf("the last read missed an OOM; notify was called %d times", notified.Load())
		}
	}
}

func TestExitWithoutOOM(t *testing.T) {
	c, dirs := makeV1(t, "memory")
	w, notified := watch(t, c)
	start(t, "exit 3", dirs["memory"]).Wait()
	if w.Stop() || notified.Load() != 0 {
		t.Error("an exit was taken for an OOM")
	}
}

func TestOldKillsAreNotTold(t *testing.T) {
	c, dirs := makeV1(t, "memory")
	write(t, filepath.Join(dirs["memory"], "memory.limit_in_bytes"), memoryLimit)
	runOOM(t, dirs["memory"])
	w, notified := watch(t, c)
	if w.Stop() || notified.Load() != 0 {
		t.Error("told of a kill from before the watch")
	}
}

// TestOOMOfPod has the limit in the parent: both containers get the event, one
// has the victim.
func TestOOMOfPod(t *testing.T) {
	_, pod := makeV1(t, "memory")
	write(t, filepath.Join(pod["memory"], "memory.limit_in_bytes"), memoryLimit)
	var watches [2]*OOMWatch
	var notified [2]*atomic.Int64
	var dirs [2]string
	for i := range watches {
		dirs[i] = filepath.Join(pod["memory"], fmt.Sprint("container", i))
		if err := os.Mkdir(dirs[i], 0o755); err != nil {
			t.Fatal(err)
		}
		watches[i], notified[i] = watch(t, load(t, map[string]string{"memory": dirs[i]}))
	}
	runOOM(t, dirs[1])
	eventually(t, "the victim's watch notifies", func() bool { return notified[1].Load() == 1 })
	if watches[0].Stop() || notified[0].Load() != 0 {
		t.Error("the neighbour of the victim was told of an OOM")
	}
}

// TestOOMInNestedCgroup has the victim in a cgroup that the container made,
// whose kills the container's own v1 counter leaves out.
func TestOOMInNestedCgroup(t *testing.T) {
	c, dirs := makeV1(t, "memory")
	write(t, filepath.Join(dirs["memory"], "memory.limit_in_bytes"), memoryLimit)
	nested := filepath.Join(dirs["memory"], "nested")
	if err := os.Mkdir(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	_, notified := watch(t, c)
	runOOM(t, nested)
	eventually(t, "notify is called", func() bool { return notified.Load() == 1 })
}

// TestWatchV2 writes the file that the kernel would.
func TestWatchV2(t *testing.T) {
	dir := t.TempDir()
	events := func(kills int) {
		write(t, filepath.Join(dir, memoryEvents), fmt.Sprintf("low 0\nhigh 0\nmax 9\noom 1\noom_kill %d\n", kills))
	}
	events(2)
	w, notified := watch(t, load(t, map[string]string{unified: dir}))
	events(2) // another event
	events(3)
	eventually(t, "notify is called", func() bool { return notified.Load() == 1 })
	events(5)
	eventually(t, "notify is called again", func() bool { return notified.Load() == 2 })
	if w.Stop() {
		t.Error("Stop reports what notify was called for")
	}
}

func TestRemovedWhileWatched(t *testing.T) {
	c, dirs := makeV1(t, "memory")
	w, notified := watch(t, c)
	if err := syscall.Rmdir(dirs["memory"]); err != nil {
		t.Fatal(err)
	}
	if w.Stop() || notified.Load() != 0 {
		t.Error("a removal was taken for an OOM")
	}
}

func TestWatchWithoutMemoryController(t *testing.T) {
	for _, dirs := range []map[string]string{
		{"pids": t.TempDir()},
		{"memory": t.TempDir()},
		{unified: t.TempDir()},
	} {
		w, err := WatchOOM(load(t, dirs), func() {})
		if w != nil || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: %v", dirs, err)
		}
	}
}

// TestWatchesCostNoThreads has many idle watches, and none of their
// descriptors left afterwards.
func TestWatchesCostNoThreads(t *testing.T) {
	const watches = 100
	c, _ := makeV1(t, "memory")
	watch(t, c) // the poller's own descriptors
	fds, threads := countDir(t, "/proc/self/fd"), countDir(t, "/proc/self/task")
	var all []*OOMWatch
	for range watches {
		w, _ := watch(t, c)
		all = append(all, w)
	}
	time.Sleep(50 * time.Millisecond) // let every goroutine come to its wait
	if more := countDir(t, "/proc/self/task") - threads; more > watches/10 {
		t.Errorf("%d watches cost %d threads", watches, more)
	}
	for _, w := range all {
		w.Stop()
	}
	if left := countDir(t, "/proc/self/fd") - fds; left != 0 {
		t.Errorf("%d descriptors left open", left)
	}
}

func countDir(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestDescriptorsAreNotInherited(t *testing.T) {
	c, _ := makeV1(t, "memory")
	v2 := t.TempDir()
	write(t, filepath.Join(v2, memoryEvents), "oom_kill 0\n")
	for _, c := range []*Cgroup{c, load(t, map[string]string{unified: v2})} {
		w, _ := watch(t, c)
		check := func(fd uintptr) {
			flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d of %s: flags %#x, %v", fd, w.events.Name(), flags, err)
			}
		}
		check(uintptr(w.counterFD))
		raw, err := w.events.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(check); err != nil {
			t.Error(err)
		}
	}
}
