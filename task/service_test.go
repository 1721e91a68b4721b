package task

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	taskapi "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/anypb"
)

// calls are all that can be asked about container "c".
// outcome is the class of an answer in the table below.
// answers tells of each state in which a container can be how each call is
// answered; "..." is a call that waits.
// reach brings container "c" into a state; what it holds up for that goes on
// when the returned function is called.
// finish ends all that a test in a bubble has left.
// The errors of one call may not keep another from being answered: 64 at once
// of every kind in every state end, and the container can be deleted.
func TestEqualCallsAtOnce(t *testing.T) {
	const many = 64
	for _, c := range []struct {
		status, verb string
		succeed      int
	}{
		{"none", "create", 1}, {"created", "start", 1}, {"running", "exec", 1}, {"running", "pause", 1},
		{"paused", "resume", 1}, {"running", "kill", many}, {"stopped", "delete", many}, {"created", "delete", many},
		{"running", "update", many}, {"stopped", "wait", many}, {"running", "state", many},
	} {
		t.Run(c.status+"/"+c.verb, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				for _, call := range []string{"create", "start", "exec", "pause", "resume", "delete", "update"} {
					r.engine.on(call, func(context.Context) error { time.Sleep(time.Millisecond); return nil })
				}
				release := reach(t, r, c.status)
				defer release()
				var all sync.WaitGroup
				errs := make([]error, many)
				for n := range many {
					all.Go(func() { errs[n] = calls[c.verb](t.Context(), r) })
				}
				all.Wait()
				succeeded := 0
				for _, err := range errs {
					if err == nil {
						succeeded++
					} else if o := outcome(err); len(o) != 2 {
						t.Errorf("unclassified: %v", err)
					}
				}
				if succeeded != c.succeed {
					t.Errorf("%d succeeded, want %d", succeeded, c.succeed)
				}
				r.finish()
				if c.verb != "delete" {
					r.delete("c", "")
				}
				checkOrder(t, r.log())
				r.engine.waitedOnce(t)
				if deletes := strings.Count(strings.Join(r.log(), "\n"), "delete c"); deletes != 1 || !r.Idle() {
					t.Errorf("%d delete events, idle %v", deletes, r.Idle())
				}
			})
		})
	}
}

func TestWordsOfErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for call, words := range map[string]string{
			"create": "OCI runtime create failed: the engine", "start": "OCI runtime start failed: the engine",
			"pause": "OCI runtime pause failed: the engine", "resume": "OCI runtime resume failed: the engine",
			"update": "OCI runtime update failed: the engine", "delete": "OCI runtime delete failed: the engine",
		} {
			status := map[string]string{"create": "none", "start": "created", "resume": "paused", "delete": "stopped"}[call]
			if status == "" {
				status = "running"
			}
			r := newRig(t)
			release := reach(t, r, status)
			r.engine.on(call, failing)
			if err := calls[call](t.Context(), r); err == nil || !strings.HasPrefix(err.Error(), words) || !errors.Is(err, errFake) {
				t.Errorf("%s: %v", call, err)
			}
			release()
			r.finish()
		}
		i := r.run("c")
		r.addExec("c", "e")
		r.engine.on("exec", failing)
		_, err := r.Start(t.Context(), &taskv3.StartRequest{ID: "c", ExecID: "e"})
		if err == nil || !strings.HasPrefix(err.Error(), "OCI runtime exec failed: the engine") {
			t.Error(err)
		}
		if _, err := r.Exec(t.Context(), execRequest("c", "e")); err == nil || !strings.HasPrefix(err.Error(), "id e: already exists") {
			t.Error(err)
		}
		i.init.exit(0)
		r.wait("c", "")
		if err := calls["kill"](t.Context(), r); err == nil || !strings.Contains(err.Error(), "process already finished") {
			t.Error(err)
		}
	})
}

// Malformed requests are refused before anything is done.
func TestInvalidRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.run("c")
		ctx := t.Context()
		for what, call := range map[string]func() error{
			"signal": func() error { _, err := r.Kill(ctx, &taskv3.KillRequest{ID: "c", Signal: 65}); return err },
			"id": func() error {
				_, err := r.Create(ctx, &taskv3.CreateTaskRequest{ID: "../c", Bundle: "/nowhere"})
				return err
			},
			"bundle": func() error {
				_, err := r.Create(ctx, &taskv3.CreateTaskRequest{ID: "d", Bundle: "relative"})
				return err
			},
			"exec id": func() error { _, err := r.Exec(ctx, execRequest("c", "a/b")); return err },
			"no exec spec": func() error {
				_, err := r.Exec(ctx, &taskv3.ExecProcessRequest{ID: "c", ExecID: "e"})
				return err
			},
			"exec without arguments": func() error {
				_, err := r.Exec(ctx, &taskv3.ExecProcessRequest{ID: "c", ExecID: "e", Spec: &anypb.Any{Value: []byte(`{"cwd":"/"}`)}})
				return err
			},
			"resources": func() error {
				_, err := r.Update(ctx, &taskv3.UpdateTaskRequest{ID: "c", Resources: &anypb.Any{Value: []byte("[")}})
				return err
			},
			"no resources": func() error { _, err := r.Update(ctx, &taskv3.UpdateTaskRequest{ID: "c"}); return err },
		} {
			if got := outcome(call()); got != "ia" {
				t.Errorf("%s: %s", what, got)
			}
		}
		if i.init.signals.Load() != 0 {
			t.Error("a signal that there is not was sent")
		}
		r.finish()
	})
}

func TestShutdownAndIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		shutdown := func() int {
			_, err := r.ShutdownTask(t.Context(), &taskv3.ShutdownRequest{})
			must(t, err)
			return r.down
		}
		release := reach(t, r, "creating")
		if r.Idle() || shutdown() != 0 {
			t.Error("ends while a container is created")
		}
		release()
		synctest.Wait()
		if r.Idle() || shutdown() != 0 {
			t.Error("ends with a container")
		}
		r.delete("c", "")
		if !r.Idle() || shutdown() != 1 {
			t.Error("stays without a container")
		}
		if _, err := r.Create(t.Context(), createRequest(t, "late")); !errdefs.IsUnavailable(err) {
			t.Errorf("create after Shutdown: %v", err)
		}
		if !r.Idle() {
			t.Error("the refused container is still counted")
		}
		must(t, r.Close(t.Context()))
	})
}

// A shim also ends when nobody asked it to.
func TestNoCreateAfterClose(t *testing.T) {
	r := newRig(t)
	must(t, r.Close(t.Context()))
	if _, err := r.Create(t.Context(), createRequest(t, "late")); !errdefs.IsUnavailable(err) {
		t.Errorf("create while ending: %v", err)
	}
}

func TestConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.create("c")
		for id, want := range map[string]uint32{"c": uint32(i.init.pid), "unknown": 0} {
			resp, err := r.Connect(t.Context(), &taskv3.ConnectRequest{ID: id})
			must(t, err)
			if resp.TaskPid != want || resp.ShimPid == 0 {
				t.Errorf("%s: %v", id, resp)
			}
		}
		r.finish()
	})
}

// Both versions of the API are answered over a real connection, with errors
// that clients can tell apart.
func TestRegister(t *testing.T) {
	r := newRig(t)
	srv, err := ttrpc.NewServer()
	must(t, err)
	r.Register(srv)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	conn, err := net.Dial("unix", l.Addr().String())
	must(t, err)
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() {
		client.Close()
		must(t, srv.Close())
		<-served
	})
	v2, v3 := taskv2.NewTTRPCTaskClient(client), taskv3.NewTTRPCTaskClient(client)
	ctx := t.Context()

	created, err := v3.Create(ctx, createRequest(t, "c"))
	must(t, err)
	_, err = v2.Start(ctx, &taskv2.StartRequest{ID: "c"})
	must(t, err)
	s, err := v2.State(ctx, &taskv2.StateRequest{ID: "c"})
	must(t, err)
	if s.Status != taskapi.Status_RUNNING || s.Pid != created.Pid {
		t.Errorf("state %v", s)
	}
	for want, err := range map[string]error{
		"nf": second(v3.State(ctx, &taskv3.StateRequest{ID: "unknown"})),
		"fp": second(v2.Delete(ctx, &taskv2.DeleteRequest{ID: "c"})),
		"ae": second(v3.Create(ctx, createRequest(t, "c"))),
		"ia": second(v2.Kill(ctx, &taskv2.KillRequest{ID: "c", Signal: 99})),
	} {
		if got := outcome(errgrpc.ToNative(err)); got != want {
			t.Errorf("%s, want %s: %v", got, want, err)
		}
	}
	_, err = v2.Kill(ctx, &taskv2.KillRequest{ID: "c", Signal: 9})
	must(t, err)
	w, err := v3.Wait(ctx, &taskv3.WaitRequest{ID: "c"})
	must(t, err)
	how, err := v2.Delete(ctx, &taskv2.DeleteRequest{ID: "c"})
	must(t, err)
	if w.ExitStatus != 137 || how.ExitStatus != 137 || how.Pid != created.Pid {
		t.Errorf("wait %v, delete %v", w, how)
	}
	if want := []string{"create c", "start c", "exit c", "delete c"}; fmt.Sprint(r.log()) != fmt.Sprint(want) {
		t.Errorf("events %q", r.log())
	}
}

func second[T any](_ T, err error) error { return err }

// An error is told with its own text, however much it wraps, and clients know
// its kind.
func TestErrorsAreToldOnce(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("mount: %w: %w", errors.New("no such file"), errors.New("invalid mount")),
		fmt.Errorf("create: %w", errors.Join(errors.New("first"), errors.New("second"))),
		fmt.Errorf("exec: %w: %w", errors.New("gone"), errdefs.ErrNotFound),
		fmt.Errorf("no: %w", errdefs.ErrInvalidArgument),
		fmt.Errorf("late: %w", context.DeadlineExceeded),
		errors.New("plain"),
	} {
		answer := method("Test", func(context.Context, *taskv3.StateRequest) (*taskv3.StateResponse, error) { return nil, err })
		_, wire := answer(t.Context(), func(any) error { return nil })
		got := errgrpc.ToNative(wire)
		if want := errdefs.Resolve(err); !errors.Is(got, want) {
			t.Errorf("%q: kind of %v is not %v", err, got, want)
		}
		text := strings.TrimSuffix(got.Error(), ": "+errdefs.ErrUnknown.Error())
		if text != err.Error() {
			t.Errorf("told %q, the error is %q", got, err)
		}
	}
}
