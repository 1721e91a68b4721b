package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// orphan makes a container whose shim is "dead": nobody waits for its init
// until the test is over.
func orphan(t *testing.T, spec *specs.Spec, start bool) (task.CreateRequest, *instance) {
	t.Helper()
	r := request(t, spec)
	made, err := Engine{}.Create(t.Context(), r)
	must(t, err)
	i := made.(*instance)
	t.Cleanup(func() {
		_ = i.init.Signal(unix.SIGKILL)
		i.init.Wait()
		_ = removeCgroups(spec.Linux.CgroupsPath)
	})
	if start {
		must(t, i.Start(t.Context()))
	}
	return r, i
}

func remove(t *testing.T, r task.CreateRequest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(t, Engine{}.Remove(ctx, r.Root, r.ID, r.Bundle))
	if left := cgroupDirs(r.Spec.Linux.CgroupsPath); len(left) > 0 {
		t.Errorf("cgroups left: %q", left)
	}
	if _, err := os.Lstat(filepath.Join(r.Root, r.ID)); !os.IsNotExist(err) {
		t.Errorf("state left: %v", err)
	}
}

func sharedPIDs(s *specs.Spec) *specs.Spec {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	return s
}

func TestRemove(t *testing.T) {
	leave := shell("for i in 0 1 2 3 4; do sleep 1000 & done; exec sleep 1000")
	for name, c := range map[string]struct {
		spec  func(id string) *specs.Spec
		start bool
		first func(*testing.T, task.CreateRequest, *instance)
	}{
		"running":              {spec: func(id string) *specs.Spec { return specOf(id, "sleep", "1000") }, start: true},
		"created":              {spec: func(id string) *specs.Spec { return specOf(id, "sleep", "1000") }},
		"shared PID namespace": {spec: func(id string) *specs.Spec { return sharedPIDs(specOf(id, leave...)) }, start: true},
		"many processes":       {spec: func(id string) *specs.Spec { return specOf(id, leave...) }, start: true},
		"paused":               {spec: func(id string) *specs.Spec { return specOf(id, leave...) }, start: true, first: func(t *testing.T, _ task.CreateRequest, i *instance) { must(t, i.Pause(t.Context())) }},
		"shared, init gone":    {spec: func(id string) *specs.Spec { return sharedPIDs(specOf(id, leave...)) }, start: true, first: func(t *testing.T, _ task.CreateRequest, i *instance) { must(t, i.init.Signal(unix.SIGKILL)) }},
		"no state.json":        {spec: func(id string) *specs.Spec { return specOf(id, leave...) }, start: true, first: loseState},
		"no state.json, paused": {spec: func(id string) *specs.Spec { return specOf(id, leave...) }, start: true, first: func(t *testing.T, r task.CreateRequest, i *instance) {
			must(t, i.Pause(t.Context()))
			loseState(t, r, i)
		}},
		"state.json is garbage": {spec: func(id string) *specs.Spec { return specOf(id, leave...) }, start: true, first: spoilState},
		"after an own Delete": {spec: func(id string) *specs.Spec { return specOf(id, "true") }, first: func(t *testing.T, _ task.CreateRequest, i *instance) {
			must(t, i.init.Signal(unix.SIGKILL))
			eventually(t, "deleted", func() bool { return i.Delete(t.Context()) == nil })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r, i := orphan(t, c.spec(newID()), c.start)
			if c.start && name != "running" {
				eventually(t, "its processes", func() bool { pids, _ := i.Pids(); return len(pids) >= 6 })
			}
			pids, _ := i.Pids()
			if c.first != nil {
				c.first(t, r, i)
			}
			remove(t, r)
			remove(t, r)
			for _, pid := range pids {
				stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				if err == nil && !strings.Contains(string(stat), ") Z ") && strings.Contains(string(stat), "(sleep)") {
					t.Errorf("still there: %s", stat)
				}
			}
		})
	}
}

// TestRemoveOfTheUnkillable has a process of a container survive its init and
// SIGKILL, in a part of the cgroup that is frozen: within the time that there is
// nothing is taken away from under it, and the next Remove takes up from there.
func TestRemoveOfTheUnkillable(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup/freezer"); err != nil {
		t.Skip("needs the freezer of cgroup v1, in which SIGKILL waits for the thaw: ", err)
	}
	for name, share := range map[string]func(*specs.Spec) *specs.Spec{
		"own PID namespace":    func(s *specs.Spec) *specs.Spec { return s },
		"shared PID namespace": sharedPIDs,
	} {
		t.Run(name, func(t *testing.T) {
			r, i := orphan(t, share(specOf(newID(), "sleep", "1000")), true)
			path := r.Spec.Linux.CgroupsPath
			frozen := filepath.Join("/sys/fs/cgroup/freezer", path, "frozen")
			must(t, os.Mkdir(frozen, 0o755))
			// It is not of the container's PID namespace: init's death is not its.
			stuck := exec.Command("sleep", "1000")
			must(t, stuck.Start())
			t.Cleanup(func() { stuck.Process.Kill(); stuck.Wait() })
			for _, dir := range cgroupDirs(path) {
				must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(stuck.Process.Pid)), 0))
			}
			must(t, os.WriteFile(filepath.Join(frozen, "cgroup.procs"), []byte(strconv.Itoa(stuck.Process.Pid)), 0))
			must(t, os.WriteFile(filepath.Join(frozen, "freezer.state"), []byte("FROZEN"), 0))
			t.Cleanup(func() { _ = os.WriteFile(filepath.Join(frozen, "freezer.state"), []byte("THAWED"), 0) })
			must(t, i.init.Signal(unix.SIGKILL))
			before := cgroupDirs(path)

			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := (Engine{}).Remove(ctx, r.Root, r.ID, r.Bundle); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("error %v", err)
			}
			if after := cgroupDirs(path); !slices.Equal(before, after) {
				t.Errorf("cgroups %q, were %q", after, before)
			}
			if _, err := os.Lstat(filepath.Join(r.Root, r.ID, "state.json")); err != nil {
				t.Error(err)
			}
			must(t, os.WriteFile(filepath.Join(frozen, "freezer.state"), []byte("THAWED"), 0))
			if err := stuck.Wait(); err == nil {
				t.Error("it was not killed by the first Remove")
			}
			remove(t, r)
		})
	}
}

func loseState(t *testing.T, r task.CreateRequest, _ *instance) {
	must(t, os.Remove(filepath.Join(r.Root, r.ID, "state.json")))
}

func spoilState(t *testing.T, r task.CreateRequest, _ *instance) {
	must(t, os.WriteFile(filepath.Join(r.Root, r.ID, "state.json"), []byte(`{"id":`), 0o600))
}

func TestRemoveManyTimesAtOnce(t *testing.T) {
	r, _ := orphan(t, specOf(newID(), "sleep", "1000"), true)
	var all sync.WaitGroup
	for range 4 {
		// One that comes second may fail on what the first takes away from
		// under it; containerd asks again.
		all.Go(func() { _ = Engine{}.Remove(t.Context(), r.Root, r.ID, r.Bundle) })
	}
	all.Wait()
	remove(t, r)
}

// Where the shim has no container, nothing is touched, whatever the bundle
// names: the cgroup may be another's.
func TestRemoveTouchesNoOther(t *testing.T) {
	other := run(t, specOf(newID(), "sleep", "1000"))
	mine := request(t, specOf(other.id, "sleep", "1000"))
	must(t, Engine{}.Remove(t.Context(), mine.Root, mine.ID, mine.Bundle))
	must(t, Engine{}.Remove(t.Context(), mine.Root, mine.ID, "/nonexistent"))
	// Nor by a create that fails because the cgroup is taken.
	if _, err := (Engine{}).Create(t.Context(), mine); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("create in another's cgroup: %v", err)
	}
	must(t, Engine{}.Remove(t.Context(), mine.Root, mine.ID, mine.Bundle))
	if other.init.Gone() {
		t.Fatal("another container was killed")
	}
	if s := other.exec("true").Status(t); s != 0 {
		t.Errorf("exec in the other: exit status %d", s)
	}
}

// A container that was put into the cgroup of one whose init had exited, or into
// one below it, lives on, and what there is of the first goes after it.
func TestRemoveLeavesWhoSharesTheCgroup(t *testing.T) {
	for name, below := range map[string]string{"same": "", "below": "/inner"} {
		t.Run(name, func(t *testing.T) {
			r, i := orphan(t, specOf(newID(), "sleep", "1000"), true)
			must(t, i.init.Signal(unix.SIGKILL))
			eventually(t, "its end", func() bool { pids, _ := i.Pids(); return len(pids) == 0 })
			spec := specOf(newID(), "sleep", "1000")
			spec.Linux.CgroupsPath = r.Spec.Linux.CgroupsPath + below
			other := run(t, spec)

			ctx, cancel := context.WithTimeout(t.Context(), 20*removePoll)
			defer cancel()
			if err := (Engine{}).Remove(ctx, r.Root, r.ID, r.Bundle); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			if s := other.exec("true").Status(t); s != 0 {
				t.Errorf("exec in the other: exit status %d", s)
			}
			must(t, other.init.Signal(unix.SIGKILL))
			eventually(t, "deleted", func() bool { return other.Delete(t.Context()) == nil })
			remove(t, r)
		})
	}
}

// What lies below a state directory is not removed with it.
func TestRemoveStateDirIsShallow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	deep := filepath.Join(dir, "criu-root", "file")
	must(t, os.MkdirAll(filepath.Dir(deep), 0o700))
	must(t, os.WriteFile(deep, nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "exec.fifo"), nil, 0o600))
	if removeStateDir(dir) == nil {
		t.Error("removed with something below it")
	}
	if _, err := os.Stat(deep); err != nil {
		t.Error(err)
	}
	must(t, os.RemoveAll(filepath.Dir(deep)))
	must(t, removeStateDir(dir))
	must(t, removeStateDir(dir))
}

// An empty cgroup is removed, one that is in use is left alone.
func TestRemoveEmptyCgroup(t *testing.T) {
	other := run(t, specOf(newID(), "sleep", "1000"))
	late, cancel := context.WithTimeout(t.Context(), 3*removePoll)
	defer cancel()
	must(t, RemoveEmptyCgroup(late, other.id, other.bundle))
	if s := other.exec("true").Status(t); s != 0 {
		t.Errorf("exec in the other: exit status %d", s)
	}
	mine := request(t, specOf(newID(), "true"))
	path := mine.Spec.Linux.CgroupsPath
	must(t, RemoveEmptyCgroup(t.Context(), mine.ID, mine.Bundle)) // there is none
	for _, dir := range cgroupDirs(cgroupParent) {
		if filepath.Base(dir) == filepath.Base(cgroupParent) {
			must(t, os.Mkdir(filepath.Join(dir, mine.ID), 0o755))
		}
	}
	must(t, RemoveEmptyCgroup(t.Context(), mine.ID, mine.Bundle))
	if left := cgroupDirs(path); len(left) > 0 {
		t.Errorf("cgroups left: %q", left)
	}
}

// TestKillEach is given what a cgroup has that is not a container's: this
// process, and one that another PID namespace hides.
func TestKillEach(t *testing.T) {
	sleep := exec.Command("sleep", "1000")
	sleep.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	must(t, sleep.Start())
	pid := sleep.Process.Pid
	if err := killEach([]int{pid, os.Getpid()}); err == nil || !strings.Contains(err.Error(), "no container's") {
		t.Errorf("a cgroup with this process in it: %v", err)
	}
	must(t, unix.Kill(pid, unix.SIGTERM))
	_ = sleep.Wait()
	if s := sleep.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != unix.SIGTERM {
		t.Errorf("the other process ended by %v before it was told to", s.Signal())
	}
	must(t, killEach([]int{0}))
	must(t, killEach([]int{pid})) // which has ended
}

// TestEnded knows what libcontainer says when another Remove was quicker.
func TestEnded(t *testing.T) {
	for _, err := range []error{
		libcontainer.ErrNotRunning,
		fmt.Errorf("unable to signal init: %w", os.ErrProcessDone),
		fmt.Errorf("unable to kill all processes: %w", &os.PathError{Op: "lstat", Path: "/sys/fs/cgroup/x", Err: unix.ENOENT}),
		fmt.Errorf("unable to kill all processes: %w", &os.PathError{Op: "read", Path: "/sys/fs/cgroup/x/cgroup.procs", Err: unix.ENODEV}),
		unix.ESRCH,
	} {
		if !ended(err) {
			t.Errorf("%v: not taken for the end", err)
		}
	}
	if ended(unix.EPERM) || ended(nil) {
		t.Error("EPERM, or no error, is taken for the end")
	}
}
