package e2e

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"containerd-shim-numa-v1/test/rig"
)

func TestPauseStopsTheProcesses(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/bin/sh", "-c", "while echo tick; do sleep 0.02; done"})
	c.awaitOutput("tick")
	s.must(c.Pause(s.ctx))
	time.Sleep(50 * time.Millisecond) // what was on its way arrives
	before := len(c.stdout.Bytes())
	time.Sleep(200 * time.Millisecond)
	want(t, "output while paused", len(c.stdout.Bytes()), before)
	s.must(c.Resume(s.ctx))
	if !rig.Eventually(bound, func() bool { return len(c.stdout.Bytes()) > before }) {
		t.Error("no output after resume")
	}
	c.stop()
}

// TestKillWhilePaused kills a frozen container. On cgroup v1 a signal waits
// until the container is thawed, which is the runtime's to do.
func TestKillWhilePaused(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	s.must(c.Pause(s.ctx))
	s.must(c.Kill(s.ctx, syscall.SIGKILL))
	want(t, "exit status", c.finish(), 137)
}

func TestKillAllReachesEveryProcess(t *testing.T) {
	s := begin(t)
	// The PID namespace is the host's, so init's death kills nothing else.
	c := s.run([]string{"/payload", "fork", "3"}, withSpec(oci.WithHostNamespace("pid")))
	c.awaitOutput("forked 3")
	pids := s.pids(c)
	want(t, "number of processes", len(pids), 4)
	s.must(c.task.Kill(s.ctx, syscall.SIGKILL, containerd.WithKillAll))
	want(t, "exit status", c.finish(), 137)
	s.gone(pids)
}

// TestLeftoversAreKilled ends the init of a container that shares the host's
// PID namespace: what it leaves behind must not live on.
func TestLeftoversAreKilled(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/payload", "fork", "5"}, withSpec(oci.WithHostNamespace("pid")))
	c.awaitOutput("forked 5")
	pids := s.pids(c)
	want(t, "number of processes", len(pids), 6)
	s.must(c.Kill(s.ctx, syscall.SIGTERM))
	want(t, "exit status", c.finish(), 0)
	s.gone(pids)
}

func (s *scene) pids(c *container) []containerd.ProcessInfo {
	s.t.Helper()
	var pids []containerd.ProcessInfo
	var last int
	rig.Eventually(bound, func() bool { // a forked child takes a moment to be in the cgroup's list
		var err error
		pids, err = c.task.Pids(s.ctx)
		s.must(err)
		settled := len(pids) == last
		last = len(pids)
		return settled
	})
	return pids
}

func (s *scene) gone(pids []containerd.ProcessInfo) {
	s.t.Helper()
	for _, p := range pids {
		if !rig.Eventually(bound, func() bool { return rig.ProcessName(int(p.Pid)) == "" }) {
			s.t.Errorf("process %d lives on: %s", p.Pid, rig.ProcessName(int(p.Pid)))
		}
	}
}

func TestPidsNameTheExecs(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	p := c.exec("sleeper", []string{"/bin/sleep", "1000"})
	pids, err := c.task.Pids(s.ctx)
	s.must(err)
	want(t, "number of processes", len(pids), 2)
	for _, info := range pids {
		var execID string
		if info.Info != nil {
			details, err := typeurl.UnmarshalAny(info.Info)
			s.must(err)
			execID = details.(*options.ProcessDetails).ExecID
		}
		expected := map[uint32]string{c.Pid(): "", p.Pid(): "sleeper"}
		name, known := expected[info.Pid]
		if !known || name != execID {
			t.Errorf("pid %d is exec %q; init is %d, the exec is %d", info.Pid, execID, c.Pid(), p.Pid())
		}
	}
	c.stop()
}

// raw talks to the Task service of containerd without the client's checks.
func (s *scene) raw() tasks.TasksClient { return s.daemon.Client().TaskService() }

func TestDeleteOfARunningTaskFails(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	if _, err := s.raw().Delete(s.ctx, &tasks.DeleteTaskRequest{ContainerID: c.ID()}); err == nil {
		t.Error("a running task was deleted")
	}
	st, err := c.Status(s.ctx)
	s.must(err)
	want(t, "status", st.Status, containerd.Running)
	c.stop()
}

func TestDeleteTwice(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/bin/true"})
	c.status()
	req := &tasks.DeleteTaskRequest{ContainerID: c.ID()}
	_, err := s.raw().Delete(s.ctx, req)
	s.must(err)
	if _, err := s.raw().Delete(s.ctx, req); !errdefs.IsNotFound(errgrpc.ToNative(err)) {
		t.Errorf("second deletion: %v, want not found", err)
	}
	c.task.IO().Close()
}

func TestKillAfterExitIsNotFound(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/bin/true"})
	c.status()
	if err := c.Kill(s.ctx, syscall.SIGKILL); !errdefs.IsNotFound(err) {
		t.Errorf("kill of an exited task: %v, want not found", err)
	}
	c.remove()
}

// equalCalls is how often a call is made at once where it must happen once.
const equalCalls = 64

// atOnce makes the same call from many goroutines and counts the successes.
func (s *scene) atOnce(what string, call func() error) (succeeded int) {
	s.t.Helper()
	var n atomic.Int32
	var group sync.WaitGroup
	for range equalCalls {
		group.Go(func() {
			if call() == nil {
				n.Add(1)
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	select {
	case <-done:
	case <-timeout():
		s.t.Fatalf("%s: %d equal calls did not all return within %s", what, equalCalls, bound)
	}
	return int(n.Load())
}

// runcRepeatsExits is why tests of equal calls are not run against it.
const runcRepeatsExits = "the runc shim of containerd 2.4 tells a process's exit once for each equal start, or dies"

func TestEqualCallsAtOnce(t *testing.T) {
	if !ours() {
		skip(t, runcRepeatsExits)
	}
	s := begin(t)
	c := s.create(idle)
	want(t, "successful starts", s.atOnce("start", func() error {
		_, err := s.raw().Start(s.ctx, &tasks.StartRequest{ContainerID: c.ID()})
		return err
	}), 1)
	if n := s.atOnce("kill", func() error {
		_, err := s.raw().Kill(s.ctx, &tasks.KillRequest{ContainerID: c.ID(), Signal: uint32(syscall.SIGKILL)})
		return err
	}); n == 0 {
		t.Error("no kill succeeded")
	}
	want(t, "exit status", c.status(), 137)
	// containerd answers a deletion that finds the task gone with success.
	if n := s.atOnce("delete", func() error {
		_, err := s.raw().Delete(s.ctx, &tasks.DeleteTaskRequest{ContainerID: c.ID()})
		return err
	}); n == 0 {
		t.Error("no deletion succeeded")
	}
}

func TestEqualExecsAtOnce(t *testing.T) {
	if !ours() {
		skip(t, runcRepeatsExits)
	}
	s := begin(t)
	c := s.run(idle)
	spec, err := c.container.Spec(s.ctx)
	s.must(err)
	spec.Process.Args = []string{"/bin/sleep", "1000"}
	process, err := typeurl.MarshalAny(spec.Process)
	s.must(err)
	want(t, "successful execs", s.atOnce("exec", func() error {
		_, err := s.raw().Exec(s.ctx, &tasks.ExecProcessRequest{ContainerID: c.ID(), ExecID: "same", Spec: anyOf(process)})
		return err
	}), 1)
	want(t, "successful exec starts", s.atOnce("start exec", func() error {
		_, err := s.raw().Start(s.ctx, &tasks.StartRequest{ContainerID: c.ID(), ExecID: "same"})
		return err
	}), 1)
	_, err = s.raw().Kill(s.ctx, &tasks.KillRequest{ContainerID: c.ID(), ExecID: "same", Signal: uint32(syscall.SIGKILL)})
	s.must(err)
	if !rig.Eventually(bound, func() bool {
		_, err := s.raw().DeleteProcess(s.ctx, &tasks.DeleteProcessRequest{ContainerID: c.ID(), ExecID: "same"})
		return err == nil
	}) {
		t.Error("the exec cannot be deleted after it was killed")
	}
	c.stop()
}

// anyOf is a typeurl value as the message that the API's requests hold.
func anyOf(v typeurl.Any) *anypb.Any {
	return &anypb.Any{TypeUrl: v.GetTypeUrl(), Value: v.GetValue()}
}

// TestSignalsReachInit sends one that a shell's trap reports.
func TestSignalsReachInit(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/bin/sh", "-c", "trap 'echo got USR1' USR1; trap 'exit 9' TERM; echo set; while :; do sleep 0.05; done"})
	c.awaitOutput("set")
	s.must(c.Kill(s.ctx, syscall.SIGUSR1))
	c.awaitOutput("got USR1")
	s.must(c.Kill(s.ctx, syscall.SIGTERM))
	want(t, "exit status", c.finish(), 9)
}

// TestInitKilledFromOutside ends init behind the shim's back.
func TestInitKilledFromOutside(t *testing.T) {
	for _, started := range []bool{true, false} {
		name := map[bool]string{true: "running", false: "created"}[started]
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			c := s.create(idle)
			if started {
				s.must(c.Start(s.ctx))
			}
			init, err := os.FindProcess(int(c.Pid()))
			s.must(err)
			s.must(init.Kill())
			want(t, "exit status", c.status(), 137)
			if !started {
				if err := c.Start(s.ctx); err == nil {
					t.Error("a dead created task was started")
				}
			}
			c.remove()
		})
	}
}
