package e2e

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"

	"containerd-shim-numa-v1/test/rig"
)

// TestCheckpointLeaveRunning makes a checkpoint of a container that is running
// and of one that is paused, which stay what they are.
func TestCheckpointLeaveRunning(t *testing.T) {
	s := beginWithCriu(t, imagePaths())
	c := s.run(counter)
	c.counts(3)
	first, err := c.checkpoint(&options.CheckpointOptions{})
	s.must(err)
	told := func(e rig.Event) bool { return e.Topic == "/tasks/checkpointed" && e.Checkpoint == first }
	if !rig.Eventually(eventBound, func() bool { return slices.ContainsFunc(s.events.Events(c.ID()), told) }) {
		t.Errorf("no event of the checkpoint: %v", s.events.Events(c.ID()))
	}
	c.counts(3)
	s.must(c.Pause(s.ctx))
	_, err = c.checkpoint(&options.CheckpointOptions{ParentPath: relative(t, first)})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("a parent that is not relative to the images: %v", err)
	}
	_, err = c.checkpoint(&options.CheckpointOptions{})
	s.must(err)
	status, err := c.Status(s.ctx)
	s.must(err)
	want(t, "status", status.Status, containerd.Paused)
	s.must(c.Resume(s.ctx))
	c.counts(3)
	want(t, "exit status", c.stop(), 128+uint32(syscall.SIGKILL))
}

// relative is a path that leads nowhere from a directory of images.
func relative(t *testing.T, dir string) string {
	t.Helper()
	return filepath.Join("..", "nowhere", filepath.Base(dir))
}

// TestRestore ends containers with a checkpoint and restores them: they go on
// where they were, with what they had open, and with their own exits.
func TestRestore(t *testing.T) {
	for _, c := range []struct {
		name    string
		opts    []option
		allowed *options.CheckpointOptions
		paused  bool
	}{
		{name: "plain"},
		{name: "paused", paused: true},
		{name: "terminal", opts: []option{withTerminal()}, allowed: &options.CheckpointOptions{Terminal: true}},
		{name: "network left empty", allowed: &options.CheckpointOptions{EmptyNamespaces: []string{"network"}}},
		{name: "host network", opts: []option{withSpec(oci.WithHostNamespace("network"))}},
		{name: "shared PIDs", opts: []option{withSpec(oci.WithHostNamespace("pid"))}},
		{name: "own user namespace", opts: []option{withUserNamespace(3 << 20)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := beginWithCriu(t, imagePaths())
			testRestore(s, c.opts, c.allowed, c.paused)
		})
	}
}

func testRestore(s *scene, opts []option, allowed *options.CheckpointOptions, paused bool) {
	t := s.t
	before := s.run(counter, opts...)
	before.counts(3)
	if paused {
		s.must(before.Pause(s.ctx))
	}
	if allowed == nil {
		allowed = &options.CheckpointOptions{}
	}
	allowed.Exit = true
	images, err := before.checkpoint(allowed)
	s.must(err)
	want(t, "exit status with the checkpoint", before.status(), 128+uint32(syscall.SIGKILL))
	before.delete()
	seen := before.numbers()
	last := seen[len(seen)-1]

	after := before.restore(images, opts...)
	want(t, "pid before the restore", after.Pid(), 0)
	if err := after.Kill(s.ctx, syscall.SIGTERM); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("kill before the restore: %v", err)
	}
	s.must(after.Start(s.ctx))
	if n := after.counts(3); n <= last {
		t.Errorf("counted to %d, then again to %d", last, n)
	}
	if first := after.numbers()[0]; first != last+1 {
		t.Errorf("counted to %d, then from %d", last, first)
	}
	metrics, err := after.task.Metrics(s.ctx)
	if err != nil || metrics.Data == nil {
		t.Errorf("statistics: %v", err)
	}
	exec := after.exec("look", []string{"/bin/tail", "-n", "1", "/data/numbers"})
	want(t, "exit status of an exec", exec.status(), 0)
	exec.delete()
	if n, err := strconv.Atoi(strings.TrimSpace(exec.stdout.String())); err != nil || n <= last {
		t.Errorf("the open file ends with %q", exec.stdout.String())
	}
	want(t, "exit status", after.stop(), 128+uint32(syscall.SIGKILL))
}

// TestCheckpointWithExec makes a checkpoint while an exec runs, which is not
// in it and ends with the container.
func TestCheckpointWithExec(t *testing.T) {
	s := beginWithCriu(t, imagePaths())
	c := s.run(counter)
	c.counts(1)
	exec := c.exec("exec", []string{"/payload", "wait"})
	exec.awaitOutput("ready")
	images, err := c.checkpoint(&options.CheckpointOptions{Exit: true})
	s.must(err)
	want(t, "exit status of the exec", exec.status(), 128+uint32(syscall.SIGKILL))
	c.status()
	exec.delete()
	c.delete()
	c = c.restore(images)
	s.must(c.Start(s.ctx))
	c.counts(1)
	look := c.exec("look", []string{"/bin/sh", "-c", "cat /proc/[0-9]*/comm 2>/dev/null; true"})
	want(t, "exit status", look.status(), 0)
	look.delete()
	if names := look.stdout.String(); strings.Contains(names, "payload") || !strings.Contains(names, "sh\n") {
		t.Errorf("restored are %q", names)
	}
	c.stop()
}

// TestRestoredAgain makes a checkpoint of a container that was restored.
func TestRestoredAgain(t *testing.T) {
	s := beginWithCriu(t, imagePaths())
	c := s.run(counter)
	c.counts(2)
	for range 2 {
		images, err := c.checkpoint(&options.CheckpointOptions{Exit: true})
		s.must(err)
		c.status()
		c.delete()
		c = c.restore(images)
		s.must(c.Start(s.ctx))
		c.counts(2)
	}
	c.stop()
}

// TestRestoreElsewhere restores a container on other CPUs than those that it
// had: its new spec counts, not what was when the checkpoint was made.
func TestRestoreElsewhere(t *testing.T) {
	s := beginWithCriu(t, imagePaths())
	if runtime.NumCPU() < 2 {
		skip(t, "needs two CPUs, to be on one of them and then on the other")
	}
	c := s.run(counter, withSpec(oci.WithCPUs("0")))
	c.counts(1)
	images, err := c.checkpoint(&options.CheckpointOptions{Exit: true})
	s.must(err)
	c.status()
	c.delete()
	spec, err := c.container.Spec(s.ctx)
	s.must(err)
	s.must(oci.WithCPUs("1")(s.ctx, nil, nil, spec))
	s.must(c.container.Update(s.ctx, containerd.UpdateContainerOpts(containerd.WithSpec(spec))))
	c = c.restore(images)
	s.must(c.Start(s.ctx))
	look := c.exec("look", []string{"/bin/grep", "Cpus_allowed_list", "/proc/1/status"})
	want(t, "exit status", look.status(), 0)
	look.delete()
	want(t, "CPUs of init", strings.TrimSpace(look.stdout.String()), "Cpus_allowed_list:\t1")
	c.stop()
}

// TestRestoreFails gives a restore nothing to restore, and deletes what was
// never restored.
func TestRestoreFails(t *testing.T) {
	s := beginWithCriu(t, imagePaths())
	c := s.run(counter)
	c.counts(1)
	images, err := c.checkpoint(&options.CheckpointOptions{Exit: true})
	s.must(err)
	c.status()
	c.delete()

	never := c.restore(images)
	_, err = never.task.Delete(s.ctx)
	s.must(err)

	s.must(os.WriteFile(filepath.Join(images, "inventory.img"), []byte("rubbish"), 0o600))
	broken := c.restore(images)
	err = broken.Start(s.ctx)
	if err == nil || !strings.Contains(err.Error(), "criu's log") {
		t.Errorf("restored from rubbish: %v", err)
	}
	status, err := broken.Status(s.ctx)
	s.must(err)
	want(t, "status", status.Status, containerd.Created)
	_, err = broken.task.Delete(s.ctx)
	s.must(err)

	work := t.TempDir()
	told, err := c.container.NewTask(s.ctx, cio.NullIO, containerd.WithRestoreImagePath(images), containerd.WithRestoreWorkPath(work))
	s.must(err)
	if err := told.Start(s.ctx); err == nil {
		t.Error("restored from rubbish")
	}
	if _, err := os.Stat(filepath.Join(work, "restore.log")); err != nil {
		t.Errorf("criu's log is not where the client wants it: %v", err)
	}
	_, err = told.Delete(s.ctx)
	s.must(err)

	_, err = c.container.NewTask(s.ctx, cio.NullIO, containerd.WithRestoreImagePath("/nonexistent"))
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("restored from nowhere: %v", err)
	}
	s.must(c.container.Delete(s.ctx, containerd.WithSnapshotCleanup))
}

// TestCheckpointFails asks for what cannot be had; the container counts on.
func TestCheckpointFails(t *testing.T) {
	s := begin(t)
	c := s.run(counter)
	file := filepath.Join(t.TempDir(), "file")
	s.must(os.WriteFile(file, nil, 0o600))
	for name, o := range map[string]*options.CheckpointOptions{
		"a file for images": {ImagePath: file},
		"no directory":      {ImagePath: "/proc/nonexistent/images"},
		"cgroups mode":      {CgroupsMode: "whatever"},
		"namespace":         {EmptyNamespaces: []string{"mount"}},
	} {
		if o.ImagePath != "" && !imagePaths() {
			continue
		}
		if _, err := c.checkpoint(o); err == nil {
			t.Errorf("%s: there is a checkpoint", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
		c.counts(1)
	}
	want(t, "exit status", c.stop(), 128+uint32(syscall.SIGKILL))

	created := s.create(counter)
	if _, err := created.checkpoint(&options.CheckpointOptions{}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("checkpoint of a container that was not started: %v", err)
	}
	created.stop()
}

// TestOpenConnection has criu itself refuse a checkpoint, of what the options
// do not allow: the container runs on. What they allow is restored.
func TestOpenConnection(t *testing.T) {
	s := beginWithCriu(t, imagePaths())
	// Go listens for MPTCP unless it is told not to; criu knows only TCP.
	c := s.run([]string{"/bin/sh", "-c", `
		/payload serve 127.0.0.1:4711 &
		until /bin/grep -q ' 0A ' /proc/net/tcp; do sleep 0.02; done # it listens
		/payload dial 127.0.0.1:4711 &
		until /bin/grep -q ' 01 ' /proc/net/tcp; do sleep 0.02; done # a connection
		echo connected
		wait`}, withSpec(oci.WithEnv([]string{"GODEBUG=multipathtcp=0"})))
	c.awaitOutput("connected")
	_, err := c.checkpoint(&options.CheckpointOptions{})
	status, statusErr := c.Status(s.ctx)
	s.must(statusErr)
	want(t, "status", status.Status, containerd.Running)
	if err != nil && strings.Contains(err.Error(), "Can't get 1:16 opt") {
		c.stop()
		skip(t, "criu up to 4.1 cannot dump TCP sockets from Linux 6.16 on, where SO_PASSCRED is not theirs any more")
	}
	if err == nil || !strings.Contains(err.Error(), "tcp-established") {
		t.Errorf("checkpoint with an open connection: %v, want a word of it", err)
	}

	images, err := c.checkpoint(&options.CheckpointOptions{OpenTcp: true, Exit: true})
	s.must(err)
	c.status()
	c.delete()
	c = c.restore(images)
	s.must(c.Start(s.ctx))
	look := c.exec("look", []string{"/bin/grep", "-c", " 01 ", "/proc/net/tcp"})
	want(t, "exit status", look.status(), 0)
	look.delete()
	want(t, "ends of connections", strings.TrimSpace(look.stdout.String()), "2")
	want(t, "exit status", c.stop(), 128+uint32(syscall.SIGKILL))
}

// TestCheckpointImage is what a person does with ctr: a checkpoint as an image,
// with the writable layer, and a new container from it.
func TestCheckpointImage(t *testing.T) {
	s := beginWithCriu(t, true)
	c := s.run(counter)
	c.counts(3)
	const name = "rig.test/checkpoint:1"
	s.ctr("containers", "checkpoint", "--rw", "--task", "--image", c.ID(), name)
	c.counts(3)
	seen := len(c.numbers())
	c.stop()
	client := s.daemon.Client()
	image, err := client.GetImage(s.ctx, name)
	s.must(err)
	again, err := client.Restore(s.ctx, s.newID(), image,
		containerd.WithRestoreImage, containerd.WithRestoreSpec, containerd.WithRestoreRuntime, containerd.WithRestoreRW)
	s.must(err)
	r := &container{process: process{scene: s}, container: again}
	r.task, err = again.NewTask(s.ctx, r.streams(nil, false), containerd.WithTaskCheckpoint(image))
	s.must(err)
	r.Process = r.task
	r.exited, err = r.task.Wait(s.ctx)
	s.must(err)
	s.must(r.Start(s.ctx))
	if r.counts(3); r.numbers()[0] < 4 || r.numbers()[0] > seen {
		t.Errorf("counts from %d; it had counted to between 3 and %d", r.numbers()[0], seen)
	}
	r.stop()
	s.must(client.ImageService().Delete(s.ctx, name, images.SynchronousDelete()))
	// containerd never removes what it unpacks the checkpoint to.
	unpacked, err := filepath.Glob(filepath.Join(s.Dir, "*", "tmp", "ctrd-checkpoint*"))
	s.must(err)
	for _, dir := range unpacked {
		s.must(os.RemoveAll(dir))
	}
}
