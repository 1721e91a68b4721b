package task

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	taskapi "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
)

func wantEvents(t *testing.T, r *rig, want ...string) {
	t.Helper()
	if got := r.log(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// While a call hangs in the engine, those that tell and kill are answered.
func TestAnsweredWhileAnotherHangs(t *testing.T) {
	for _, c := range []struct{ status, hangs string }{
		{"none", "create"}, {"created", "start"}, {"running", "exec"}, {"running", "pause"},
		{"paused", "resume"}, {"stopped", "delete"}, {"running", "update"},
	} {
		t.Run(c.hangs, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.run("other").init.pid = 7
				release := reach(t, r, c.status)
				release()
				g := newGate()
				r.engine.on(c.hangs, g.hook)
				if c.hangs == "exec" {
					r.addExec("c", "e")
					go func() { _, _ = r.Start(context.Background(), &taskv3.StartRequest{ID: "c", ExecID: "e"}) }()
				} else {
					go func() { _ = calls[c.hangs](context.Background(), r) }()
				}
				<-g.entered
				before := time.Now()
				for _, verb := range []string{"state", "connect", "pids", "stats", "kill"} {
					_ = calls[verb](t.Context(), r)
				}
				_, err := r.Kill(t.Context(), &taskv3.KillRequest{ID: "other", Signal: 9})
				must(t, err)
				r.wait("other", "")
				if time.Since(before) > 0 {
					t.Error("an answer had to wait")
				}
				r.engine.on(c.hangs, nil)
				close(g.open)
				r.finish()
			})
		})
	}
}

// A container whose init is killed while its start or an exec's hangs tells
// of it once the hanging call is over, in the right order.
func TestExitBeforeStartReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.create("c")
		r.engine.on("start", func(context.Context) error { i.init.exit(4); time.Sleep(time.Second); return nil })
		r.start("c", "")
		if w := r.wait("c", ""); w.ExitStatus != 4 {
			t.Errorf("exit status %d", w.ExitStatus)
		}
		wantEvents(t, r, "create c", "start c", "exit c")
		r.delete("c", "")
	})
}

func TestExecExitsBeforeStartReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.run("c")
		r.addExec("c", "e")
		r.engine.on("exec made", func(context.Context) error { i.lastExec().exit(5); time.Sleep(time.Second); return nil })
		r.start("c", "e")
		if w := r.wait("c", "e"); w.ExitStatus != 5 {
			t.Errorf("exit status %d", w.ExitStatus)
		}
		wantEvents(t, r, "create c", "start c", "added c e", "start c e", "exit c e")
		if how := r.delete("c", "e"); how.ExitStatus != 5 {
			t.Errorf("delete %v", how)
		}
		if _, err := r.State(t.Context(), &taskv3.StateRequest{ID: "c", ExecID: "e"}); !errdefs.IsNotFound(err) {
			t.Errorf("state of a deleted exec: %v", err)
		}
		r.finish()
	})
}

// The waiter of an exec may be quicker than the request that has started it.
func TestExitOfExecWaitsForItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run("c")
		r.addExec("c", "e")
		c, err := r.container("c")
		must(t, err)
		p, err := c.beginStart("e")
		must(t, err)
		child := r.engine.newChild()
		p.child = child
		child.exit(5)
		go c.awaitExec(p, child)
		synctest.Wait()
		wantEvents(t, r, "create c", "start c", "added c e")
		_, err = c.endStart(p, nil)
		must(t, err)
		r.wait("c", "e")
		wantEvents(t, r, "create c", "start c", "added c e", "start c e", "exit c e")
		r.finish()
	})
}

// From the moment in which init's exit is seen, before it can be told, no exec
// is added and none is started.
func TestNoExecOnceInitHasExited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.createWith("c", sharedPIDs)
		r.start("c", "")
		r.addExec("c", "added")
		g := newGate()
		r.engine.on("killall", g.hook)
		i.init.exit(0)
		<-g.entered
		if err := calls["exec"](t.Context(), r); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("exec: %v", err)
		}
		r.engine.on("exec", func(context.Context) error { t.Error("the engine was asked for an exec"); return nil })
		if _, err := r.Start(t.Context(), &taskv3.StartRequest{ID: "c", ExecID: "added"}); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("start of an exec: %v", err)
		}
		close(g.open)
		r.wait("c", "")
		r.delete("c", "")
	})
}

// An exec that is just being started when init exits is told of before it.
func TestInitExitWaitsForStartingExec(t *testing.T) {
	for _, spec := range []string{ownPIDs, sharedPIDs} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			i := r.createWith("c", spec)
			r.start("c", "")
			r.addExec("c", "e")
			r.engine.on("exec made", func(context.Context) error { i.init.exit(0); time.Sleep(time.Second); return nil })
			r.start("c", "e")
			r.wait("c", "")
			wantEvents(t, r, "create c", "start c", "added c e", "start c e", "exit c e", "exit c")
			if calls["exec"](t.Context(), r) == nil {
				t.Error("exec in a container whose init has exited")
			}
			r.delete("c", "")
		})
	}
}

// An exec whose start takes longer than init's exit can be held back is not
// started any more.
func TestExecStartedTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.createWith("c", sharedPIDs)
		r.start("c", "")
		r.addExec("c", "e")
		r.engine.on("exec made", func(context.Context) error { i.init.exit(0); time.Sleep(time.Minute); return nil })
		_, err := r.Start(t.Context(), &taskv3.StartRequest{ID: "c", ExecID: "e"})
		if !errdefs.IsFailedPrecondition(err) {
			t.Errorf("start: %v", err)
		}
		wantEvents(t, r, "create c", "start c", "added c e", "exit c")
		r.engine.waitedOnce(t)
		r.delete("c", "")
	})
}

// An exec whose start hangs uses up its own time only: another that dies with
// what init has left is told of before init.
func TestHangingStartHoldsBackOtherExits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, i, started := hangingStart(t, 2*execExitBudget)
		dies := i.lastExec()
		r.engine.on("killall", func(context.Context) error {
			time.AfterFunc(time.Second, func() { dies.exit(signalStatusBase + 9) })
			return errFake
		})
		i.init.exit(0)
		r.wait("c", "")
		wantEvents(t, r, "create c", "start c", "added c runs", "start c runs", "added c hangs", "exit c runs", "exit c")
		if err := <-started; !errdefs.IsFailedPrecondition(err) {
			t.Errorf("start: %v", err)
		}
		r.delete("c", "")
	})
}

// Once init's exit waits for no further start none succeeds, also while the
// exits of other execs are awaited.
func TestExecStartedWhileExitsAreAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, i, started := hangingStart(t, execExitBudget+time.Second)
		stays := i.lastExec()
		r.engine.on("killall", failing)
		i.init.exit(0)
		time.AfterFunc(execExitBudget+2*time.Second, func() { stays.exit(signalStatusBase + 9) })
		r.wait("c", "")
		wantEvents(t, r, "create c", "start c", "added c runs", "start c runs", "added c hangs", "exit c runs", "exit c")
		if err := <-started; !errdefs.IsFailedPrecondition(err) {
			t.Errorf("start: %v", err)
		}
		r.engine.waitedOnce(t)
		r.delete("c", "")
	})
}

// hangingStart makes a container without a PID namespace of its own that has
// two execs, one that runs and one whose start takes long from now on.
func hangingStart(t *testing.T, long time.Duration) (*rig, *fakeInstance, <-chan error) {
	r := newRig(t)
	i := r.createWith("c", sharedPIDs)
	r.start("c", "")
	r.addExec("c", "runs")
	r.start("c", "runs")
	r.addExec("c", "hangs")
	r.engine.on("exec", func(context.Context) error { time.Sleep(long); return nil })
	started := make(chan error, 1)
	go func() {
		_, err := r.Start(context.Background(), &taskv3.StartRequest{ID: "c", ExecID: "hangs"})
		started <- err
	}()
	synctest.Wait()
	return r, i, started
}

// Processes that cannot be killed do not hold back init's exit for ever.
func TestInitExitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.createWith("c", sharedPIDs)
		r.start("c", "")
		r.addExec("c", "e")
		r.start("c", "e")
		r.engine.on("killall", failing)
		exec := i.lastExec()
		before := time.Now()
		i.init.exit(1)
		r.wait("c", "")
		if took := time.Since(before); took > 2*execExitBudget {
			t.Errorf("took %s", took)
		}
		exec.exit(9)
		r.delete("c", "")
	})
}

func TestStartOfInitFails(t *testing.T) {
	for name, dead := range map[string]bool{"init waits on": false, "init dies": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				i := r.create("c")
				r.engine.on("start", func(context.Context) error {
					if dead {
						i.init.exit(signalStatusBase + 9)
					}
					return errFake
				})
				if err := calls["start"](t.Context(), r); !errors.Is(err, errFake) {
					t.Error(err)
				}
				synctest.Wait()
				want := []string{"create c"}
				if dead {
					want = append(want, "exit c")
				}
				wantEvents(t, r, want...)
				r.engine.on("start", nil)
				if err := calls["start"](t.Context(), r); (err == nil) == dead {
					t.Errorf("second start: %v", err)
				}
				i.init.exit(0)
				r.wait("c", "")
				r.delete("c", "")
				checkOrder(t, r.log())
			})
		})
	}
}

func TestStartOfExecFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.run("c")
		r.addExec("c", "e")
		r.engine.on("exec", failing)
		if _, err := r.Start(t.Context(), &taskv3.StartRequest{ID: "c", ExecID: "e"}); !errors.Is(err, errFake) {
			t.Error(err)
		}
		if w := r.wait("c", "e"); w.ExitStatus != statusNeverStarted {
			t.Errorf("wait: %v", w)
		}
		if s := r.status("c", "e"); s != taskapi.Status_STOPPED {
			t.Errorf("status %s", s)
		}
		if how := r.delete("c", "e"); how.Pid != 0 || how.ExitStatus != statusNeverStarted {
			t.Errorf("delete: %v", how)
		}
		i.init.exit(0)
		r.wait("c", "")
		wantEvents(t, r, "create c", "start c", "added c e", "exit c")
		r.delete("c", "")
	})
}

// A process that is not known to anybody is not left behind if its streams
// fail after it was made: a terminal that never arrives.
// Whatever step of a Create fails, nothing stays: no descriptor, goroutine,
// id, event or container of the engine.
// A created container that is deleted cannot be started meanwhile.
// One who waits for another's delete is told of its failure, and one who
// stops waiting does not stop it.
// A delete whose engine hangs ends by itself.
// Whoever waits for an exec that never starts is told when it is deleted.
// A killed container does not stay frozen: on cgroup v1 it would not die.
// Deletes sent again are answered, but not for ever.
// The exit is in the bundle before anybody is told of it.
