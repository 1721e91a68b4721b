package task

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	taskapi "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

func TestStartWhileCreatedIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		release := reach(t, r, "ending")
		r.engine.last().init.exit(0)
		release()
		synctest.Wait()
		wantEvents(t, r, "create c", "exit c", "delete c")
	})
}

func TestDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		i := r.run("c")
		i.init.exit(3)
		first := r.wait("c", "")
		// After an error it can be tried again, and tells the same.
		r.engine.on("delete", failing)
		for range 2 {
			if err := calls["delete"](t.Context(), r); !errors.Is(err, errFake) {
				t.Error(err)
			}
			if s := r.status("c", ""); s != taskapi.Status_STOPPED {
				t.Errorf("status %s", s)
			}
		}
		r.engine.on("delete", nil)
		how := r.delete("c", "")
		if how.ExitStatus != 3 || how.Pid != uint32(i.init.pid) || !how.ExitedAt.AsTime().Equal(first.ExitedAt.AsTime()) {
			t.Errorf("%v", how)
		}
		if again := r.delete("c", ""); again.String() != how.String() {
			t.Errorf("second delete %v, first %v", again, how)
		}
		wantEvents(t, r, "create c", "start c", "exit c", "delete c")
		// With a new container of that id the old one is forgotten.
		r.run("c")
		if err := calls["delete"](t.Context(), r); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("delete of a running container: %v", err)
		}
		r.finish()
	})
}

func TestDeleteTwiceAtOnce(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			reach(t, r, "stopped")()
			g := newGate()
			r.engine.on("delete", g.hook)
			ctx, cancel := context.WithCancel(t.Context())
			results := make(chan error, 2)
			go func() { results <- calls["delete"](ctx, r) }()
			<-g.entered
			go func() { results <- calls["delete"](t.Context(), r) }()
			synctest.Wait()
			cancel()
			synctest.Wait()
			if fails {
				g.err = errFake
			}
			close(g.open)
			for range 2 {
				if err := <-results; (err != nil) != fails {
					t.Errorf("fails %v: %v", fails, err)
				}
			}
			r.engine.on("delete", nil)
			r.delete("c", "")
			wantEvents(t, r, "create c", "start c", "exit c", "delete c")
		})
	}
}

func TestDeleteIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		reach(t, r, "stopped")()
		r.engine.on("delete", newGate().hook)
		before := time.Now()
		if err := calls["delete"](t.Context(), r); !errors.Is(err, context.DeadlineExceeded) || time.Since(before) > drainBudget+cleanupBudget {
			t.Errorf("%v after %s", err, time.Since(before))
		}
		// An init that was never started and does not die.
		r = newRig(t)
		i := r.create("d")
		i.init.stubborn.Store(true)
		if _, err := r.Delete(t.Context(), &taskv3.DeleteRequest{ID: "d"}); err == nil {
			t.Error("deleted with a living init")
		}
		i.init.exit(9)
		synctest.Wait()
		r.delete("d", "")
	})
}

func TestWaitForExecThatNeverStarts(t *testing.T) {
	for name, remove := range map[string]func(*rig){
		"exec deleted":      func(r *rig) { r.delete("c", "e") },
		"container deleted": func(r *rig) { r.kill("c", "", 9); r.wait("c", ""); r.delete("c", "") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.run("c")
				r.addExec("c", "e")
				ended := make(chan *taskv3.WaitResponse)
				go func() { ended <- r.wait("c", "e") }()
				synctest.Wait()
				remove(r)
				if w := <-ended; w.ExitStatus != statusNeverStarted {
					t.Errorf("%v", w)
				}
				if strings.Contains(fmt.Sprint(r.log()), "exit c e") {
					t.Errorf("exit of what never ran: %q", r.log())
				}
				r.finish()
			})
		})
	}
}

func TestTombstones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for n := range 2 * maxTombstones {
			id := fmt.Sprint("c", n)
			r.run(id).init.exit(uint32(n))
			r.wait(id, "")
			r.delete(id, "")
		}
		for n := range 2 * maxTombstones {
			how, err := r.Delete(t.Context(), &taskv3.DeleteRequest{ID: fmt.Sprint("c", n)})
			if kept := n >= maxTombstones; (err == nil) != kept || kept && how.ExitStatus != uint32(n) {
				t.Errorf("%d: %v, %v", n, how, err)
			}
		}
		if n := len(r.ended.order); n != maxTombstones || len(r.ended.byID) != n {
			t.Errorf("%d tombstones", n)
		}
	})
}

// publisher is what happens at each event.
type publisher func(topic string, event proto.Message)

func (p publisher) Publish(topic string, event proto.Message) { p(topic, event) }

// Before a deletion is told nobody can make the next container of that id, and
// the shim does not count as idle.
func TestIDIsTakenUntilItsDeletionIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		told := false
		r.Publisher = publisher(func(topic string, event proto.Message) {
			r.Publish(topic, event)
			if topic == topicDelete {
				told = true
				if err := r.reserve("c"); !errdefs.IsAlreadyExists(err) || r.Idle() {
					t.Errorf("create while the deletion is told: %v, idle %v", err, r.Idle())
				}
			}
		})
		reach(t, r, "stopped")()
		r.delete("c", "")
		if !told {
			t.Error("no deletion was told")
		}
	})
}

// A Delete that has found the container when another was there, and goes on
// when that is done, has its answer.
func TestDeleteThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		reach(t, r, "stopped")()
		c, err := r.container("c")
		must(t, err)
		r.delete("c", "")
		first, done, err := c.beginDelete()
		if first || err != nil {
			t.Fatalf("first %v, %v", first, err)
		}
		<-done
	})
}

// The end of a container does not cut off the output of an exec that nobody
// has deleted yet.
func TestDeleteAwaitsOutputOfExecs(t *testing.T) {
	noLeak(t)
	path := fifos(t, "out")[0]
	out := readAll(path)
	r := newRig(t)
	i := r.run("c")
	var stdout *os.File
	r.engine.streams = func(f Files) { stdout = dup(t, f.Stdout) }
	exec := execRequest("c", "e")
	exec.Stdout = path
	_, err := r.Exec(t.Context(), exec)
	must(t, err)
	r.start("c", "e")
	i.lastExec().exit(0)
	r.wait("c", "e")
	i.init.exit(0)
	r.wait("c", "")
	c, err := r.container("c")
	must(t, err)
	data := randomBytes(1 << 20) // more than what is on its way at any time
	deleted := make(chan error)
	go func() { deleted <- calls["delete"](t.Context(), r) }()
	eventually(t, "the deletion is under way", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.init.status != Stopped
	})
	_, err = stdout.Write(data)
	stdout.Close()
	must(t, err)
	if got := <-out; !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d, or others", len(got), len(data))
	}
	must(t, <-deleted)
}
