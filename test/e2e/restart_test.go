package e2e

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"

	"containerd-shim-numa-v1/test/rig"
)

// running is how many containers live through containerd's death.
const running = 20

// TestContainerdKilled kills containerd under running containers. After its
// return none is lost or was restarted, and those that ended meanwhile are
// told as ended, with their own exit status.
func TestContainerdKilled(t *testing.T) {
	s := begin(t)
	s.gap = true
	for range *restartsFlag {
		var all []*container
		for i := range running {
			c := s.run([]string{"/payload", "wait", fmt.Sprint(i)}, withIO(cio.NullIO))
			all = append(all, c)
		}
		ended := all[:running/4]
		s.must(s.daemon.Kill())
		for _, c := range ended {
			s.signalInit(c, syscall.SIGTERM)
		}
		for _, c := range ended {
			if !rig.Eventually(bound, func() bool { return rig.ProcessName(int(c.Pid())) == "" }) {
				t.Fatalf("%s does not end while containerd is down: %s", c.ID(), rig.ProcessName(int(c.Pid())))
			}
		}
		s.must(s.daemon.Start(s.ctx))

		for i, c := range ended {
			s.wantEnded(c, uint32(i))
		}
		for _, c := range all[len(ended):] {
			task := s.reload(c)
			st, err := task.Status(s.ctx)
			s.must(err)
			want(t, "status of "+c.ID(), st.Status, containerd.Running)
			want(t, "pid of "+c.ID(), task.Pid(), c.Pid())
		}
		// They are as usable as before.
		for i, c := range all[len(ended):] {
			task := s.reload(c)
			exited, err := task.Wait(s.ctx)
			s.must(err)
			s.must(task.Kill(s.ctx, syscall.SIGTERM))
			select {
			case status := <-exited:
				want(t, "exit status of "+c.ID(), status.ExitCode(), uint32(i+len(ended)))
			case <-timeout():
				t.Fatalf("no exit of %s", c.ID())
			}
		}
		s.removeAll()
	}
}

// signalInit signals a container's init past containerd.
func (s *scene) signalInit(c *container, sig syscall.Signal) {
	s.t.Helper()
	init, err := os.FindProcess(int(c.Pid()))
	s.must(err)
	s.must(init.Signal(sig))
}

// reload finds a container's task as a client does that was started later.
func (s *scene) reload(c *container) containerd.Task {
	s.t.Helper()
	loaded, err := s.daemon.Client().LoadContainer(s.ctx, c.ID())
	s.must(err)
	task, err := loaded.Task(s.ctx, nil)
	s.must(err)
	return task
}

// wantEnded sees that a container which ended while containerd was away is
// still there, stopped, with its status. The runc shim's are taken for leaked
// by containerd's reload, which then deletes them.
func (s *scene) wantEnded(c *container, code uint32) {
	s.t.Helper()
	if !ours() {
		loaded, err := s.daemon.Client().LoadContainer(s.ctx, c.ID())
		s.must(err)
		if _, err := loaded.Task(s.ctx, nil); errdefs.IsNotFound(err) {
			return
		}
	}
	st, err := s.reload(c).Status(s.ctx)
	s.must(err)
	want(s.t, "status of "+c.ID(), st.Status, containerd.Stopped)
	want(s.t, "exit status of "+c.ID(), st.ExitStatus, code)
}

// TestOutputOverRestart has a container write all the time while containerd
// is killed and started: the reader, which is not containerd, misses nothing.
func TestOutputOverRestart(t *testing.T) {
	s := begin(t)
	s.gap = true
	const lines = 100
	c := s.run([]string{"/bin/sh", "-c", fmt.Sprintf("for i in $(seq 1 %d); do echo line $i; sleep 0.01; done; /payload wait", lines)})
	c.awaitOutput("line 10\n")
	s.must(s.daemon.Kill())
	time.Sleep(200 * time.Millisecond)
	s.must(s.daemon.Start(s.ctx))
	c.awaitOutput("ready")
	expected := ""
	for i := range lines {
		expected += fmt.Sprintf("line %d\n", i+1)
	}
	want(t, "output", c.stdout.String(), expected+"ready\n")
}
