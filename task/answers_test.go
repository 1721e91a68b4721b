package task

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var calls = map[string]func(context.Context, *rig) error{
	"create": func(ctx context.Context, r *rig) error {
		_, err := r.Create(ctx, createRequest(r.t, "c"))
		return err
	},
	"start": func(ctx context.Context, r *rig) error {
		_, err := r.Start(ctx, &taskv3.StartRequest{ID: "c"})
		return err
	},
	"exec": func(ctx context.Context, r *rig) error {
		_, err := r.Exec(ctx, execRequest("c", "new"))
		return err
	},
	"state": func(ctx context.Context, r *rig) error {
		_, err := r.State(ctx, &taskv3.StateRequest{ID: "c"})
		return err
	},
	"wait": func(ctx context.Context, r *rig) error {
		_, err := r.Wait(ctx, &taskv3.WaitRequest{ID: "c"})
		return err
	},
	"pids": func(ctx context.Context, r *rig) error {
		_, err := r.Pids(ctx, &taskv3.PidsRequest{ID: "c"})
		return err
	},
	"stats": func(ctx context.Context, r *rig) error {
		_, err := r.Stats(ctx, &taskv3.StatsRequest{ID: "c"})
		return err
	},
	"kill": func(ctx context.Context, r *rig) error {
		_, err := r.Kill(ctx, &taskv3.KillRequest{ID: "c", Signal: 10})
		return err
	},
	"pause": func(ctx context.Context, r *rig) error {
		_, err := r.Pause(ctx, &taskv3.PauseRequest{ID: "c"})
		return err
	},
	"resume": func(ctx context.Context, r *rig) error {
		_, err := r.Resume(ctx, &taskv3.ResumeRequest{ID: "c"})
		return err
	},
	"update": func(ctx context.Context, r *rig) error {
		_, err := r.Update(ctx, &taskv3.UpdateTaskRequest{ID: "c", Resources: &anypb.Any{Value: []byte("{}")}})
		return err
	},
	"resize": func(ctx context.Context, r *rig) error {
		_, err := r.ResizePty(ctx, &taskv3.ResizePtyRequest{ID: "c", Width: 80, Height: 24})
		return err
	},
	"closeio": func(ctx context.Context, r *rig) error {
		_, err := r.CloseIO(ctx, &taskv3.CloseIORequest{ID: "c", Stdin: true})
		return err
	},
	"delete": func(ctx context.Context, r *rig) error {
		_, err := r.Delete(ctx, &taskv3.DeleteRequest{ID: "c"})
		return err
	},
	"checkpoint": func(ctx context.Context, r *rig) error {
		_, err := r.Checkpoint(ctx, &taskv3.CheckpointTaskRequest{ID: "c", Path: r.t.TempDir()})
		return err
	},
	"connect": func(ctx context.Context, r *rig) error {
		_, err := r.Connect(ctx, &taskv3.ConnectRequest{ID: "c"})
		return err
	},
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, context.DeadlineExceeded):
		return "..."
	case errdefs.IsNotFound(err):
		return "nf"
	case errdefs.IsFailedPrecondition(err):
		return "fp"
	case errdefs.IsAlreadyExists(err):
		return "ae"
	case errdefs.IsNotImplemented(err):
		return "ni"
	case errdefs.IsInvalidArgument(err):
		return "ia"
	}
	return err.Error()
}

const answers = `
           create start exec state wait pids stats kill pause resume update resize closeio delete checkpoint connect
none       ok     nf    nf   nf    nf   nf   nf    nf   nf    nf     nf     nf     nf      nf     nf         ok
creating   ae     nf    nf   nf    nf   nf   nf    nf   nf    nf     nf     nf     nf      nf     nf         ok
created    ae     ok    ok   ok    ...  ok   nf    ok   fp    fp     ok     ok     ok      ok     fp         ok
starting   ae     fp    ok   ok    ...  ok   nf    ok   fp    fp     ok     ok     ok      fp     fp         ok
running    ae     fp    ok   ok    ...  ok   nf    ok   ok    fp     ok     ok     ok      fp     ok         ok
pausing    ae     fp    fp   ok    ...  ok   nf    ok   fp    fp     ok     ok     ok      fp     fp         ok
paused     ae     fp    fp   ok    ...  ok   nf    ok   fp    ok     ok     ok     ok      fp     ok         ok
resuming   ae     fp    fp   ok    ...  ok   nf    ok   fp    fp     ok     ok     ok      fp     fp         ok
saving     ae     fp    fp   ok    ...  ok   nf    ok   fp    fp     ok     ok     ok      fp     fp         ok
restorable ae     ok    ok   ok    ...  fp   nf    fp   fp    fp     ok     ok     ok      ok     fp         ok
restoring  ae     fp    ok   ok    ...  fp   nf    fp   fp    fp     ok     ok     ok      fp     fp         ok
stopped    ae     fp    fp   ok    ok   fp   nf    nf   fp    fp     fp     fp     ok      ok     fp         ok
deleting   ae     fp    fp   ok    ok   fp   nf    nf   fp    fp     fp     fp     ok      ...    fp         ok
ending     ae     fp    fp   ok    ...  ok   nf    ok   fp    fp     ok     ok     ok      ...    fp         ok
deleted    ok     nf    nf   nf    nf   nf   nf    nf   nf    nf     nf     nf     nf      ok     nf         ok
`

func reach(t testing.TB, r *rig, status string) (release func()) {
	g := newGate()
	hang := func(call, verb string) {
		r.engine.on(call, g.hook)
		go func() { _ = calls[verb](context.Background(), r) }()
		<-g.entered
		r.engine.on(call, nil)
	}
	switch status {
	case "none":
	case "creating":
		hang("create", "create")
	case "created":
		r.create("c")
	case "starting":
		r.create("c")
		hang("start", "start")
	case "running":
		r.run("c")
	case "pausing":
		r.run("c")
		hang("pause", "pause")
	case "paused", "resuming":
		r.run("c")
		must(t, calls["pause"](t.Context(), r))
		if status == "resuming" {
			hang("resume", "resume")
		}
	case "saving":
		r.run("c")
		hang("checkpoint", "checkpoint")
	case "restorable", "restoring":
		r.createFrom("c", t.TempDir())
		if status == "restoring" {
			hang("start", "start")
		}
	case "stopped", "deleting", "deleted":
		r.run("c").init.exit(3)
		r.wait("c", "")
		if status == "deleting" {
			hang("delete", "delete")
		}
		if status == "deleted" {
			r.delete("c", "")
		}
	case "ending": // being deleted as created, but init does not die
		i := r.create("c")
		i.init.stubborn.Store(true)
		go func() { _ = calls["delete"](context.Background(), r) }()
		synctest.Wait()
	default:
		t.Fatal(status)
	}
	return func() { close(g.open) }
}

func (r *rig) finish() {
	synctest.Wait()
	r.engine.mu.Lock()
	made := append([]*fakeInstance(nil), r.engine.made...)
	r.engine.mu.Unlock()
	for _, i := range made {
		i.init.exit(0)
		i.endExecs()
	}
	synctest.Wait()
}

func TestAnswers(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(answers), "\n")
	verbs := strings.Fields(lines[0])
	if len(verbs) != len(calls) {
		t.Fatalf("%d verbs in the table, %d calls", len(verbs), len(calls))
	}
	for _, line := range lines[1:] {
		row := strings.Fields(line)
		for n, want := range row[1:] {
			t.Run(row[0]+"/"+verbs[n], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					release := reach(t, r, row[0])
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if got := outcome(calls[verbs[n]](ctx, r)); got != want {
						t.Errorf("%s of a container that is %s: %s, want %s", verbs[n], row[0], got, want)
					}
					release()
					r.finish()
				})
			})
		}
	}
}

// What has not exited has done so at no time. Clients make 1970 of a time that
// is missing, which is none that they know to be no time.
func TestNotExitedYet(t *testing.T) {
	r := newRig(t)
	i := r.create("c")
	zero := func(when string, at *timestamppb.Timestamp) {
		t.Helper()
		if at == nil || !at.AsTime().IsZero() {
			t.Errorf("%s: exited at %v", when, at)
		}
	}
	state := func(execID string) *timestamppb.Timestamp {
		t.Helper()
		s, err := r.State(t.Context(), &taskv3.StateRequest{ID: "c", ExecID: execID})
		must(t, err)
		return s.ExitedAt
	}
	zero("created", state(""))
	r.start("c", "")
	zero("running", state(""))
	r.addExec("c", "e")
	zero("exec added", state("e"))
	zero("exec deleted before its start", r.delete("c", "e").ExitedAt)
	i.init.exit(0)
	r.wait("c", "")
	if at := state("").AsTime(); at.IsZero() || at.Year() == 1970 {
		t.Errorf("exited at %v", at)
	}
	r.delete("c", "")
}
