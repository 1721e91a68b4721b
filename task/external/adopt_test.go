package external

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// reaped waits until nobody is left that the process has adopted.
func reaped(t *testing.T) {
	t.Helper()
	eventually(t, "all that was adopted is reaped", func() bool {
		return len(adopted(t)) == 0
	})
}

// Orphans of whatever descendant are adopted, and reaped when they exit.
func TestStrangersAreReaped(t *testing.T) {
	must(t, exec.Command("sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.$i & exit 3) & done; wait").Run())
	reaped(t)
}

// A child that others have started is theirs to wait for, however often the
// adopter looks.
func TestChildrenOfOthersAreLeftAlone(t *testing.T) {
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 50 {
				cmd := exec.Command("sh", "-c", "(true &); exit 7")
				if err := cmd.Start(); err != nil {
					t.Error(err)
					return
				}
				adoption.lookAgain()
				_ = cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); code != 7 {
					t.Errorf("exit status %d", code)
				}
			}
		})
	}
	group.Wait()
	reaped(t)
}

// A process that exits before its pid is known has its exit status, and one
// that has not is left to its waiter.
func TestBirth(t *testing.T) {
	b := adoption.begin()
	defer adoption.end(b)
	// The shells end at once and leave one child each.
	must(t, exec.Command("sh", "-c", "(exit 7) &").Run())
	out, err := exec.Command("sh", "-c", "(read line) <$0 >/dev/null 2>&1 & echo $!", fifo(t)).Output()
	must(t, err)
	eventually(t, "one of two has been reaped", func() bool {
		adoption.mu.Lock()
		defer adoption.mu.Unlock()
		return len(b.exits) == 1
	})
	pidFile := filepath.Join(t.TempDir(), "pid")
	for pid, exit := range b.exits {
		must(t, os.WriteFile(pidFile, []byte(strconv.Itoa(pid)), 0o600))
		c, err := adoption.adopt(b, pidFile)
		must(t, err)
		if got := c.Wait(); got != exit || got.Status != 7 || c.Pid() != pid {
			t.Errorf("process %d, exit %+v, want 7", c.Pid(), got)
		}
		if err := c.Signal(unix.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	}
	must(t, os.WriteFile(pidFile, out, 0o600))
	c, err := adoption.adopt(b, pidFile)
	must(t, err)
	must(t, c.Signal(unix.SIGTERM))
	eventually(t, "a zombie", func() bool { return isZombie(c.Pid()) })
	must(t, adoption.reapStrangers())
	if got := c.Wait(); got.Status != 143 {
		t.Errorf("exit %+v, want 143", got)
	}
	reaped(t)
}

// fifo makes a FIFO that nobody writes to but that can be opened.
func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return path
}

// What a runtime may tell instead of a pid.
func TestPidFiles(t *testing.T) {
	b := adoption.begin()
	defer adoption.end(b)
	path := filepath.Join(t.TempDir(), "pid")
	for _, text := range []string{"", "-1", "0", "x", "99999999"} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if c, err := adoption.adopt(b, path); err == nil {
			t.Errorf("%q is the process %d", text, c.Pid())
		}
	}
	if len(adoption.claims) > 0 {
		t.Errorf("claims stay: %v", adoption.claims)
	}
}

// Processes without a PID namespace of their own that lose their parent are
// the shim's to reap, and end with the container.
func TestSharedPIDNamespace(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r rig) {
		c := r.run(t, sharedPIDs(specOf(newID(), shell("for i in 1 2 3; do (sleep 1000 &) ; done; (sleep 0.1 &); sleep 0.3; exit 3")...)))
		if s := c.init.Status(t); s != 3 {
			t.Errorf("exit status %d", s)
		}
		var pids []int
		eventually(t, "three are left", func() bool {
			var err error
			pids, err = c.Pids()
			must(t, err)
			return len(pids) == 3
		})
		must(t, c.KillAll(unix.SIGCONT))
		must(t, c.KillAll(unix.SIGKILL))
		reaped(t)
	})
}

// Many execs that end at once, beside strangers: each has its own exit status.
func TestConcurrentExecs(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r rig) {
		c := r.run(t, specOf(newID(), "sleep", "1000"))
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range 4 {
					child, err := c.Exec(t.Context(), processSpec(shell("(true &); exit 9")...), task.Files{})
					if err != nil {
						t.Error(err)
						return
					}
					if exit := child.Wait(); exit.Status != 9 || time.Since(exit.At) > time.Hour {
						t.Errorf("exit %+v", exit)
					}
				}
			})
		}
		group.Wait()
	})
}
