package task

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
)

// dice is a source of chance for several goroutines.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// nap sleeps for up to 20 ms, of a clock that does not pass by itself.
func (d *dice) nap() { time.Sleep(time.Duration(d.n(20)) * time.Millisecond) }

// TestRandomInterleavings has several clients do anything to a few containers
// at any time, while the engine is slow and fails and processes exit. Whatever
// happens, the events must tell a story that is possible, every process must
// have had its one waiter, and all must be deletable in the end.
func TestRandomInterleavings(t *testing.T) {
	seeds := 150
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		for _, spec := range []string{ownPIDs, sharedPIDs} {
			synctest.Test(t, func(t *testing.T) { interleave(t, uint64(seed), spec) })
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func interleave(t *testing.T, seed uint64, spec string) {
	d := &dice{r: rand.New(rand.NewPCG(seed, 1))}
	r := newRig(t)
	for call, failures := range map[string]int{"create": 10, "start": 10, "exec": 10, "pause": 20, "resume": 20, "delete": 30, "update": 0, "killall": 0} {
		r.engine.on(call, func(context.Context) error {
			d.nap()
			if d.n(100) < failures {
				return errFake
			}
			return nil
		})
	}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 25 {
				anything(t, r, d, spec)
				d.nap()
			}
		})
	}
	clients.Wait()
	for id := range 3 {
		if err := r.endContainer(fmt.Sprint("c", id)); err != nil {
			t.Errorf("cannot be deleted: %v", err)
		}
	}
	synctest.Wait()
	checkOrder(t, r.log())
	r.engine.waitedOnce(t)
	if !r.Idle() {
		t.Error("containers remain")
	}
}

// anything does one thing to one of three containers.
func anything(t *testing.T, r *rig, d *dice, spec string) {
	id, exec := fmt.Sprint("c", d.n(3)), fmt.Sprint("e", d.n(4))
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+d.n(30))*time.Millisecond)
	defer cancel()
	switch d.n(16) {
	case 0:
		_, _ = r.Create(ctx, &taskv3.CreateTaskRequest{ID: id, Bundle: bundle(t, spec)})
	case 1, 2:
		_, _ = r.Start(ctx, &taskv3.StartRequest{ID: id})
	case 3, 4:
		_, _ = r.Exec(ctx, execRequest(id, exec))
	case 5, 6, 7:
		_, _ = r.Start(ctx, &taskv3.StartRequest{ID: id, ExecID: exec})
	case 8:
		_, _ = r.Kill(ctx, &taskv3.KillRequest{ID: id, Signal: 9, All: d.n(2) == 0})
	case 9:
		_, _ = r.Kill(ctx, &taskv3.KillRequest{ID: id, ExecID: exec, Signal: 15})
	case 10:
		_, _ = r.Delete(ctx, &taskv3.DeleteRequest{ID: id, ExecID: exec})
	case 11:
		_, _ = r.Delete(ctx, &taskv3.DeleteRequest{ID: id})
	case 12:
		_, _ = r.Pause(ctx, &taskv3.PauseRequest{ID: id})
	case 13:
		_, _ = r.Resume(ctx, &taskv3.ResumeRequest{ID: id})
	case 14:
		_, _ = r.Pids(ctx, &taskv3.PidsRequest{ID: id})
		_, _ = r.State(ctx, &taskv3.StateRequest{ID: id, ExecID: exec})
		_, _ = r.Wait(ctx, &taskv3.WaitRequest{ID: id, ExecID: exec})
		_, _ = r.CloseIO(ctx, &taskv3.CloseIORequest{ID: id, ExecID: exec, Stdin: true})
	case 15:
		exitOne(r, d)
	}
}

// exitOne has any process exit by itself.
func exitOne(r *rig, d *dice) {
	r.engine.mu.Lock()
	var all []*fakeChild
	for _, i := range r.engine.made {
		i.mu.Lock()
		all = append(append(all, i.init), i.execs...)
		i.mu.Unlock()
	}
	r.engine.mu.Unlock()
	if len(all) > 0 {
		all[d.n(len(all))].exit(uint32(d.n(3)))
	}
}

// endContainer kills and deletes a container, trying again as containerd's users do.
func (r *rig) endContainer(id string) error {
	for range 200 {
		ctx := context.Background()
		_, _ = r.Kill(ctx, &taskv3.KillRequest{ID: id, Signal: 9})
		_, err := r.Delete(ctx, &taskv3.DeleteRequest{ID: id})
		if err == nil || outcome(err) == "nf" {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	_, err := r.Delete(context.Background(), &taskv3.DeleteRequest{ID: id})
	return err
}
