package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"

	"containerd-shim-numa-v1/test/rig"
)

// timeout fires when bound has passed.
func timeout() <-chan time.Time { return time.After(bound) }

func TestRunPrintsAndExits(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/bin/sh", "-c", "echo out; echo err >&2; hostname; exit 3"}, withSpec(oci.WithHostname("rig-host")))
	want(t, "exit status", c.finish(), 3)
	want(t, "stdout", c.stdout.String(), "out\nrig-host\n")
	want(t, "stderr", c.stderr.String(), "err\n")
}

func TestInitIsPid1AndHasNoForeignDescriptors(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/bin/sh", "-c", "/payload ids; /payload fds"})
	want(t, "exit status", c.finish(), 0)
	out := c.stdout.String()
	if !strings.Contains(out, "uid 0 gid 0") {
		t.Errorf("ids are %q", out)
	}
	for line := range strings.Lines(out) {
		if n, target, ok := strings.Cut(strings.TrimSpace(line), " "); ok && len(n) == 1 && n[0] > '2' && n[0] <= '9' {
			t.Errorf("the container inherited descriptor %s: %s", n, target)
		}
	}
}

// TestExitCodes reads the status from all three places that tell it: Wait,
// the exit event and Delete.
func TestExitCodes(t *testing.T) {
	for _, code := range []uint32{0, 1, 2, 42, 126, 127, 128, 137, 255} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			s := begin(t)
			c := s.run([]string{"/payload", "exit", fmt.Sprint(code)})
			want(t, "status by Wait", c.status(), code)
			event, err := s.events.Await(bound, "/tasks/exit", c.ID(), "")
			s.must(err)
			want(t, "status by event", event.Status, code)
			want(t, "pid by event", event.Pid, c.Pid())
			deleted := c.delete()
			want(t, "status by Delete", deleted.ExitCode(), code)
			if deleted.ExitTime().IsZero() || time.Since(deleted.ExitTime()).Abs() > time.Hour {
				t.Errorf("exit time is %s", deleted.ExitTime())
			}
		})
	}
}

func TestEndBySignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			s := begin(t)
			// A shell as PID 1 would ignore what it does not handle, so the
			// namespace is shared and the default action applies.
			c := s.run([]string{"/bin/sleep", "1000"}, withSpec(oci.WithHostNamespace("pid")))
			s.must(c.Kill(s.ctx, sig))
			want(t, "exit status", c.finish(), 128+uint32(sig))
		})
	}
}

func TestTermIsHandled(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/payload", "wait", "7"})
	c.awaitOutput("ready")
	s.must(c.Kill(s.ctx, syscall.SIGTERM))
	want(t, "exit status", c.finish(), 7)
}

func TestStates(t *testing.T) {
	s := begin(t)
	c := s.create([]string{"/payload", "wait"})
	state := func(expected containerd.ProcessStatus) {
		t.Helper()
		st, err := c.Status(s.ctx)
		s.must(err)
		want(t, "status", st.Status, expected)
	}
	state(containerd.Created)
	s.must(c.Start(s.ctx))
	state(containerd.Running)
	s.must(c.Pause(s.ctx))
	state(containerd.Paused)
	s.must(c.Resume(s.ctx))
	state(containerd.Running)
	s.must(c.Kill(s.ctx, syscall.SIGKILL))
	c.status()
	state(containerd.Stopped)
	c.remove()
}

func (c *container) Pause(ctx context.Context) error  { return c.task.Pause(ctx) }
func (c *container) Resume(ctx context.Context) error { return c.task.Resume(ctx) }

func TestCreatedTaskCanBeDeleted(t *testing.T) {
	s := begin(t)
	c := s.create([]string{"/bin/true"})
	_, err := c.task.Delete(s.ctx, containerd.WithProcessKill)
	s.must(err)
	s.must(c.container.Delete(s.ctx, containerd.WithSnapshotCleanup))
}

// TestRootfsIsTheContainersOwn sees that a container writes to its snapshot
// and to nothing else.
func TestRootfsIsTheContainersOwn(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/bin/sh", "-c", "echo changed > /etc/passwd && echo new > /data/new && cat /data/new && /payload stats /"})
	want(t, "exit status", c.status(), 0)
	c.wantOutput(fmt.Sprintf("new\n%#x\n", overlayMagic))
	upper := s.upperDir(c.ID())
	for name, content := range map[string]string{"etc/passwd": "changed\n", "data/new": "new\n"} {
		b, err := os.ReadFile(upper + "/" + name)
		s.must(err)
		want(t, name+" on the upper layer", string(b), content)
	}
	c.remove()
	other := s.run([]string{"/bin/sh", "-c", "grep -c root /etc/passwd; ls /data"})
	want(t, "exit status", other.finish(), 0)
	want(t, "another container's view", other.stdout.String(), "1\n")
}

// overlayMagic is OVERLAYFS_SUPER_MAGIC of linux/magic.h.
const overlayMagic = 0x794c7630

// upperDir is the writable layer of a container's snapshot.
func (s *scene) upperDir(id string) string {
	s.t.Helper()
	mounts, err := s.daemon.Client().SnapshotService(rig.Snapshotter).Mounts(s.ctx, id)
	s.must(err)
	for _, m := range mounts {
		for _, o := range m.Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				return dir
			}
		}
	}
	s.t.Fatalf("snapshot of %s has no upper layer: %v", id, mounts)
	return ""
}
