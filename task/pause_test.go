package task

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	taskapi "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
)

func TestPauseAndExecs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.run("c")
		r.addExec("c", "e")
		r.addExec("c", "f")
		g := newGate()
		r.engine.on("exec", g.hook)
		go func() { _, _ = r.Start(context.Background(), &taskv3.StartRequest{ID: "c", ExecID: "e"}) }()
		<-g.entered
		paused := make(chan error)
		go func() { paused <- calls["pause"](t.Context(), r) }()
		synctest.Wait()
		if i.isFrozen() {
			t.Error("frozen with an exec half made")
		}
		if s := r.status("c", ""); s != taskapi.Status_PAUSING {
			t.Errorf("status %s", s)
		}
		if _, err := r.Start(t.Context(), &taskv3.StartRequest{ID: "c", ExecID: "f"}); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("exec started while pausing: %v", err)
		}
		close(g.open)
		must(t, <-paused)
		if s := r.status("c", "e"); s != taskapi.Status_PAUSED || !i.isFrozen() {
			t.Errorf("exec's status %s, frozen %v", s, i.isFrozen())
		}
		must(t, calls["resume"](t.Context(), r))
		if s := r.status("c", "e"); s != taskapi.Status_RUNNING {
			t.Errorf("exec's status %s", s)
		}
		wantEvents(t, r, "create c", "start c", "added c e", "added c f", "start c e", "paused c", "resumed c")
		r.finish()
	})
}

func TestPauseFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run("c")
		r.engine.on("pause", failing)
		_ = calls["pause"](t.Context(), r)
		if s := r.status("c", ""); s != taskapi.Status_RUNNING {
			t.Errorf("status %s after a failed pause", s)
		}
		r.engine.on("pause", nil)
		must(t, calls["pause"](t.Context(), r))
		r.engine.on("resume", failing)
		_ = calls["resume"](t.Context(), r)
		if s := r.status("c", ""); s != taskapi.Status_PAUSED {
			t.Errorf("status %s after a failed resume", s)
		}
		wantEvents(t, r, "create c", "start c", "paused c")
		r.finish()
	})
}

func TestKillThaws(t *testing.T) {
	for _, status := range []string{"paused", "pausing"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			release := reach(t, r, status)
			i := r.engine.last()
			i.init.stubborn.Store(true) // as frozen processes are
			r.kill("c", "", 9)
			release()
			synctest.Wait()
			if i.isFrozen() {
				t.Errorf("%s: frozen after SIGKILL", status)
			}
			r.finish()
		})
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.run("c")
		r.addExec("c", "e")
		r.start("c", "e")
		must(t, calls["pause"](t.Context(), r))
		r.kill("c", "e", 9)
		if !i.isFrozen() {
			t.Error("killing an exec has thawed the container")
		}
		must(t, calls["resume"](t.Context(), r))
		must(t, calls["pause"](t.Context(), r))
		r.finish()
	})
}

// What an init without a PID namespace of its own leaves is killed, and does
// not stay frozen, whether init exits while the container is paused or just
// before it is.
func TestLeftoversThaw(t *testing.T) {
	for _, status := range []string{"paused", "pausing"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			i := r.createWith("c", sharedPIDs)
			r.start("c", "")
			if status == "pausing" {
				r.engine.on("pause", func(context.Context) error { i.init.exit(0); time.Sleep(time.Second); return nil })
			}
			if err := calls["pause"](t.Context(), r); (err == nil) != (status == "paused") {
				t.Errorf("%s: %v", status, err)
			}
			i.init.exit(0)
			r.wait("c", "")
			if i.isFrozen() {
				t.Errorf("%s: what init left is frozen", status)
			}
			r.delete("c", "")
			checkOrder(t, r.log())
		})
	}
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run("c")
		r.addExec("c", "e")
		if _, err := r.Kill(t.Context(), &taskv3.KillRequest{ID: "c", ExecID: "e", Signal: 9}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "process not created") {
			t.Errorf("kill of an exec not started: %v", err)
		}
		r.start("c", "e")
		r.kill("c", "e", 15)
		if w := r.wait("c", "e"); w.ExitStatus != 143 {
			t.Errorf("%v", w)
		}
		if s := r.status("c", ""); s != taskapi.Status_RUNNING {
			t.Errorf("init is %s", s)
		}
		// All, and the death of an init that shares its PID namespace, end all.
		for n, kill := range []*taskv3.KillRequest{{ID: "s", Signal: 9}, {ID: "s", Signal: 9, All: true}} {
			i := r.createWith("s", sharedPIDs)
			r.start("s", "")
			r.addExec("s", "e")
			r.start("s", "e")
			_, err := r.Kill(t.Context(), kill)
			must(t, err)
			if w := r.wait("s", ""); w.ExitStatus != 137 || !i.lastExec().gone() {
				t.Errorf("%d: exit %d, exec gone %v", n, w.ExitStatus, i.lastExec().gone())
			}
			r.delete("s", "")
		}
		r.finish()
	})
}
