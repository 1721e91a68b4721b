package children

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// begin starts a process that runs until its input ends. It is the test's to
// reap.
func begin(t *testing.T) (h *Handle, end func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat")
	cmd.Stdin = r
	err = cmd.Start()
	r.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	if h, err = Open(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h, func() { w.Close() }
}

// TestHandle signals a process at every point of its life.
func TestHandle(t *testing.T) {
	h, _ := begin(t)
	if err := h.Signal(0); err != nil {
		t.Errorf("to one that runs: %v", err)
	}
	var awaited sync.WaitGroup
	for range 3 {
		awaited.Go(h.AwaitExit)
	}
	if err := h.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	awaited.Wait()
	ws, err := Reap(h.Pid())
	if err != nil || ws.Signal() != unix.SIGTERM {
		t.Errorf("wait status %#x, %v", ws, err)
	}
	for range 2 {
		if err := h.Signal(unix.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("to one that is gone: %v", err)
		}
		h.Close()
	}
	h.AwaitExit() // does not block
	if err := h.Control(func(int) { t.Error("called with a closed descriptor") }); !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	if _, err := Open(h.Pid()); !errors.Is(err, unix.ESRCH) {
		t.Errorf("a handle of nobody: %v", err)
	}
	if _, err := Reap(h.Pid()); !errors.Is(err, unix.ECHILD) {
		t.Errorf("reaped twice: %v", err)
	}
}

// TestCloseWhileAwaited closes a handle under who awaits the exit.
func TestCloseWhileAwaited(t *testing.T) {
	h, end := begin(t)
	var awaited sync.WaitGroup
	awaited.Go(h.AwaitExit)
	h.Close()
	awaited.Wait()
	end()
	if ws, err := Reap(h.Pid()); err != nil || ws.ExitStatus() != 0 {
		t.Errorf("wait status %#x, %v", ws, err)
	}
}

// TestOf sees the children of its own thread, and of no other.
func TestOf(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	h, end := begin(t)
	pids, err := Of(unix.Gettid())
	if err != nil || !slices.Contains(pids, h.Pid()) {
		t.Errorf("children %v, %v, want %d", pids, err, h.Pid())
	}
	var elsewhere sync.WaitGroup
	elsewhere.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if pids, err := Of(unix.Gettid()); err != nil || slices.Contains(pids, h.Pid()) {
			t.Errorf("children of another thread: %v, %v", pids, err)
		}
	})
	elsewhere.Wait()
	end()
	h.AwaitExit()
	if pids, err = Of(unix.Gettid()); err != nil || !slices.Contains(pids, h.Pid()) {
		t.Errorf("children, one of them a zombie: %v, %v", pids, err)
	}
	if _, err := Reap(h.Pid()); err != nil {
		t.Error(err)
	}
	if pids, err = Of(unix.Gettid()); err != nil || slices.Contains(pids, h.Pid()) {
		t.Errorf("children, that one reaped: %v, %v", pids, err)
	}
	if _, err := Of(0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no thread: %v", err)
	}
}

// TestAllOf reads the list while every second child in it is reaped.
func TestAllOf(t *testing.T) {
	const rounds, pairs = 5, 40
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range rounds {
		var dead []*Handle
		var stay []int
		for range pairs {
			dying, end := begin(t)
			staying, _ := begin(t)
			dead, stay = append(dead, dying), append(stay, staying.Pid())
			end()
		}
		for _, h := range dead {
			h.AwaitExit()
		}
		reaped := make(chan struct{})
		go func() {
			defer close(reaped)
			for _, h := range dead {
				_, _ = Reap(h.Pid())
			}
		}()
		for done := false; !done; {
			select {
			case <-reaped:
				done = true
			default:
			}
			pids, err := AllOf(unix.Gettid())
			if err != nil {
				t.Fatal(err)
			}
			for _, pid := range stay {
				if !slices.Contains(pids, pid) {
					t.Fatalf("child %d is missing in %v", pid, pids)
				}
			}
		}
		for _, pid := range stay {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = Reap(pid)
		}
	}
}
