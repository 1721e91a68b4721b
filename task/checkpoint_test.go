package task

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	taskapi "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func checkpointOptions(t testing.TB, o *runcoptions.CheckpointOptions) *anypb.Any {
	t.Helper()
	data, err := proto.Marshal(o)
	must(t, err)
	return &anypb.Any{TypeUrl: "containerd.runc.v1.CheckpointOptions", Value: data}
}

// What a request says reaches the engine, or is refused.
func TestCheckpointOptions(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "first"), 0o700))
	images, other := filepath.Join(dir, "images"), filepath.Join(dir, "other")
	for name, c := range map[string]struct {
		path    string
		options *runcoptions.CheckpointOptions
		want    CheckpointRequest
		outcome string
	}{
		"none":     {images, nil, CheckpointRequest{Images: images, LeaveRunning: true}, "ok"},
		"by image": {"", &runcoptions.CheckpointOptions{ImagePath: other}, CheckpointRequest{Images: other, LeaveRunning: true}, "ok"},
		"both":     {images, &runcoptions.CheckpointOptions{ImagePath: other}, CheckpointRequest{Images: images, LeaveRunning: true}, "ok"},
		"all": {
			dir + "/second", &runcoptions.CheckpointOptions{
				Exit: true, OpenTcp: true, ExternalUnixSockets: true, Terminal: true, FileLocks: true,
				EmptyNamespaces: []string{"network"}, CgroupsMode: "soft", WorkPath: dir + "/work", ParentPath: "../first",
			},
			CheckpointRequest{
				Images: dir + "/second", Work: dir + "/work", Parent: "../first",
				OpenTCP: true, ExternalUnixSockets: true, Terminal: true, FileLocks: true,
				EmptyNamespaces: []string{"network"}, CgroupsMode: "soft",
			}, "ok",
		},
		"no path":         {"", nil, CheckpointRequest{}, "ia"},
		"relative":        {"i", nil, CheckpointRequest{}, "ia"},
		"relative work":   {images, &runcoptions.CheckpointOptions{WorkPath: "w"}, CheckpointRequest{}, "ia"},
		"absolute parent": {images, &runcoptions.CheckpointOptions{ParentPath: dir}, CheckpointRequest{}, "ia"},
		"no parent":       {dir + "/second", &runcoptions.CheckpointOptions{ParentPath: "../third"}, CheckpointRequest{}, "ia"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			i := r.run("c")
			q := &taskv3.CheckpointTaskRequest{ID: "c", Path: c.path}
			if c.options != nil {
				q.Options = checkpointOptions(t, c.options)
			}
			_, err := r.Checkpoint(t.Context(), q)
			if got := outcome(err); got != c.outcome {
				t.Errorf("%s, want %s", got, c.outcome)
			}
			got, want := i.checkpoint, c.want
			if got.Work == criuWork(i.request.Bundle) {
				got.Work = ""
			}
			if strings.Join(got.EmptyNamespaces, " ") != strings.Join(want.EmptyNamespaces, " ") {
				t.Errorf("empty namespaces %q, want %q", got.EmptyNamespaces, want.EmptyNamespaces)
			}
			got.EmptyNamespaces, want.EmptyNamespaces = nil, nil
			if !equalRequests(got, want) {
				t.Errorf("%+v, want %+v", got, want)
			}
			r.kill("c", "", 9)
			r.wait("c", "")
		})
	}
	r := newRig(t)
	r.run("c")
	if _, err := r.Checkpoint(t.Context(), &taskv3.CheckpointTaskRequest{ID: "c", Path: images, Options: &anypb.Any{TypeUrl: "other"}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("options of another type: %v", err)
	}
	r.kill("c", "", 9)
	r.wait("c", "")
}

func equalRequests(a, b CheckpointRequest) bool {
	return a.Images == b.Images && a.Work == b.Work && a.Parent == b.Parent && a.LeaveRunning == b.LeaveRunning &&
		a.OpenTCP == b.OpenTCP && a.ExternalUnixSockets == b.ExternalUnixSockets && a.Terminal == b.Terminal &&
		a.FileLocks == b.FileLocks && a.CgroupsMode == b.CgroupsMode
}

// The exit of a container that ends with its checkpoint is told after it, and
// one that was paused is paused again.
func TestCheckpointAndExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.run("c")
		must(t, calls["pause"](t.Context(), r))
		r.engine.on("checkpoint", func(context.Context) error {
			if s := r.status("c", ""); s != taskapi.Status_PAUSED {
				t.Errorf("is %s meanwhile", s)
			}
			return nil
		})
		must(t, calls["checkpoint"](t.Context(), r))
		if s := r.status("c", ""); s != taskapi.Status_PAUSED {
			t.Errorf("is %s afterwards", s)
		}
		must(t, calls["resume"](t.Context(), r))
		r.engine.on("checkpoint", func(context.Context) error {
			i.init.exit(137)
			time.Sleep(time.Second)
			if s := r.status("c", ""); s != taskapi.Status_RUNNING {
				t.Errorf("is %s meanwhile", s)
			}
			return nil
		})
		must(t, calls["checkpoint"](t.Context(), r))
		r.wait("c", "")
		r.delete("c", "")
		wantEvents(t, r, "create c", "start c", "paused c", "checkpointed c", "resumed c", "checkpointed c", "exit c", "delete c")
	})
}

// A paused container that is killed during its checkpoint is thawed after it.
func TestKilledDuringCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.run("c")
		must(t, calls["pause"](t.Context(), r))
		r.engine.on("checkpoint", func(context.Context) error {
			r.kill("c", "", 9)
			return errFake
		})
		if err := calls["checkpoint"](t.Context(), r); !errors.Is(err, errFake) {
			t.Error(err)
		}
		if i.isFrozen() {
			t.Error("a killed container stays frozen")
		}
		r.wait("c", "")
		r.delete("c", "")
	})
}

// criu's log outlives a failure, and its errors are told.
func TestCriuLog(t *testing.T) {
	r := newRig(t)
	i := r.run("c")
	dir := criuWork(i.request.Bundle)
	r.engine.on("checkpoint", func(context.Context) error {
		must(t, os.WriteFile(filepath.Join(dir, dumpLog), []byte("(0.1) fine\n(0.2) Error (a.c:1): first\n(0.3) Error (b.c:2): second\n(0.4) end\n"), 0o600))
		return errFake
	})
	err := calls["checkpoint"](t.Context(), r)
	kept := filepath.Join(i.request.Bundle, "work", "criu-dump.log")
	for _, words := range []string{"OCI runtime checkpoint failed: ", errFake.Error(), "(a.c:1): first; (b.c:2): second", kept} {
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v, want %q", err, words)
		}
	}
	if data, err := os.ReadFile(kept); err != nil || !strings.Contains(string(data), "first") {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("criu's work directory: %v", err)
	}
	wantEvents(t, r, "create c", "start c")
	r.kill("c", "", 9)
	r.wait("c", "")
}

func TestCriuErrors(t *testing.T) {
	for log, want := range map[string]string{
		"": "it is empty", "\n": "it is empty", "(0.1) a\n(0.2) b\n": "(0.2) b", "(0.1) Error (x): y": "(x): y",
		"Error 1\nError 2\nError 3\nError 4\nError 5\n": "2; 3; 4; 5",
	} {
		if got := criuErrors([]byte(log)); got != want {
			t.Errorf("%q: %q, want %q", log, got, want)
		}
	}
}

// A container is restored by its Start; before that there is nothing to kill
// and nothing that exits, but it can be deleted, and whoever waits is told.
func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.createFrom("c", t.TempDir())
		s, err := r.State(t.Context(), &taskv3.StateRequest{ID: "c"})
		must(t, err)
		if s.Pid != 0 || s.Status != taskapi.Status_CREATED {
			t.Errorf("state %v", s)
		}
		v2, err := r.pidsV2(t.Context(), &taskv3.PidsRequest{ID: "c"})
		must(t, err)
		if len(v2.Processes) != 1 || v2.Processes[0].Pid != 0 {
			t.Errorf("processes %v: containerd 1.7 takes none for a leaked shim", v2.Processes)
		}
		r.engine.on("start", failing)
		if err := calls["start"](t.Context(), r); !errors.Is(err, errFake) || !strings.HasPrefix(err.Error(), "OCI runtime restore failed: ") {
			t.Error(err)
		}
		r.engine.on("start", nil)
		r.start("c", "")
		if pid := readInitPid(i.request.Bundle); pid != i.init.pid {
			t.Errorf("the bundle tells pid %d, want %d", pid, i.init.pid)
		}
		r.kill("c", "", 9)
		r.wait("c", "")
		r.delete("c", "")
		wantEvents(t, r, "create c", "start c", "exit c", "delete c")
		r.engine.waitedOnce(t)
	})
}

// A client's directory for criu is made, and is the client's to remove.
func TestRestoreWorkPath(t *testing.T) {
	r := newRig(t)
	work := filepath.Join(t.TempDir(), "criu")
	request := createRequest(t, "c")
	request.Checkpoint, request.Options = t.TempDir(), marshal(t, &runcoptions.Options{CriuWorkPath: work})
	_, err := r.Create(t.Context(), request)
	must(t, err)
	log := filepath.Join(work, restoreLog)
	r.engine.on("start", func(context.Context) error {
		must(t, os.WriteFile(log, []byte("(0.1) Error (a.c:1): why\n"), 0o600))
		return errFake
	})
	if err := calls["start"](t.Context(), r); err == nil || !strings.Contains(err.Error(), "(a.c:1): why") {
		t.Errorf("%v, want criu's words", err)
	}
	if _, err := os.Stat(log); err != nil {
		t.Errorf("criu's log is not the client's: %v", err)
	}
	r.delete("c", "")
}

func TestDeleteOfWhatWasNeverRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.createFrom("c", t.TempDir())
		done := make(chan uint32)
		go func() { done <- r.wait("c", "").ExitStatus }()
		synctest.Wait()
		r.engine.on("delete", failing)
		if err := calls["delete"](t.Context(), r); !errors.Is(err, errFake) {
			t.Error(err)
		}
		r.engine.on("delete", nil)
		before := time.Now()
		how := r.delete("c", "")
		if status := <-done; status != statusNeverStarted || how.ExitStatus != status || how.Pid != 0 {
			t.Errorf("wait %d, delete %v", status, how)
		}
		if time.Since(before) > 0 {
			t.Error("output that nobody writes was waited for")
		}
		wantEvents(t, r, "create c", "delete c")
	})
}

// plainEngine can neither make a checkpoint nor restore one.
type plainEngine struct{ Engine }

func (e plainEngine) Create(ctx context.Context, r CreateRequest) (Instance, error) {
	i, err := e.Engine.Create(ctx, r)
	return struct{ Instance }{i}, err
}

func TestEnginesWithoutCheckpoints(t *testing.T) {
	r := newRig(t)
	r.Engine = plainEngine{r.engine}
	if _, err := r.Create(t.Context(), &taskv3.CreateTaskRequest{ID: "c", Bundle: bundle(t, ownPIDs), Checkpoint: t.TempDir()}); !errdefs.IsNotImplemented(err) {
		t.Errorf("restore: %v", err)
	}
	r.run("c")
	if err := calls["checkpoint"](t.Context(), r); !errdefs.IsNotImplemented(err) {
		t.Errorf("checkpoint: %v", err)
	}
	r.kill("c", "", 9)
	r.wait("c", "")
	r.delete("c", "")
}

func TestRestoreFromNowhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	r := newRig(t)
	for _, images := range []string{"relative", "/nonexistent/images", file} {
		_, err := r.Create(t.Context(), &taskv3.CreateTaskRequest{ID: "c", Bundle: bundle(t, ownPIDs), Checkpoint: images})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", images, err)
		}
	}
	if !r.Idle() {
		t.Error("a container is left")
	}
}

// What was killed in the middle of a restore has the root filesystem mounted
// within its state: that goes, and not what is in it.
func TestCleanupOfARestore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir, rootfs := bundle(t, ownPIDs), t.TempDir()
	precious := filepath.Join(rootfs, "precious")
	must(t, os.WriteFile(precious, nil, 0o600))
	root := t.TempDir()
	must(t, writeOptions(dir, Options{Settings: Settings{Root: root}}))
	state := filepath.Join(stateRoot("ns", dir), "c")
	must(t, os.MkdirAll(filepath.Join(state, criuRoot), 0o700))
	must(t, unix.Mount(rootfs, filepath.Join(state, criuRoot), "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(state, criuRoot), unix.MNT_DETACH) })
	_, _, err := Cleanup(t.Context(), removerFunc(func(context.Context, string, string, string) error { return os.RemoveAll(state) }), "ns", "c", dir)
	must(t, err)
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}
