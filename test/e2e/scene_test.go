package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"

	"containerd-shim-numa-v1/test/rig"
)

// bound is how long anything may take that takes milliseconds when all is
// well. Exceeding it means stuck, not slow.
const bound = 60 * time.Second

// eventBound is how long an event may be on its way from the shim.
const eventBound = 10 * time.Second

// scene is one test's use of the machine.
type scene struct {
	*fixture
	t   *testing.T
	ctx context.Context

	mu  sync.Mutex
	ids []string
	ios []cio.IO

	gap        bool // containerd or a shim was killed: its events are not complete
	shimKilled bool
}

// begin takes the census and arranges that, after the test and its cleanup,
// a second one is the same and all events were in order.
func begin(t *testing.T) *scene {
	t.Helper()
	ctx, cancel := context.WithCancel(shared.leased)
	s := &scene{fixture: shared, t: t, ctx: ctx}
	before := s.daemon.TakeCensus()
	t.Cleanup(func() {
		defer cancel()
		s.removeAll()
		for _, io := range s.ios { // the client's own FIFOs: processes that Delete was not asked for
			io.Cancel()
			io.Close()
		}
		if diff := s.daemon.AwaitCensus(before, s.tolerated()...); diff != "" {
			t.Errorf("the machine is not as it was before the test:\n%s", diff)
		}
		s.checkEvents()
	})
	return s
}

// checkEvents waits for the containers' last events and checks the order of
// all. Events travel beside answers, so the last may come after Delete's.
//
// The runc shim sends deletions without regard to exits on their way and ends
// without waiting for its forwarder: now and then it swaps or loses the last
// events. So its faults are logged only.
func (s *scene) checkEvents() {
	if s.gap {
		return
	}
	within, report := eventBound, s.t.Errorf
	if !ours() {
		within, report = time.Second, s.t.Logf
	}
	for _, id := range s.ids {
		var err error
		rig.Eventually(within, func() bool {
			err = nil
			if events := s.events.Events(id); len(events) > 0 { // else its Create failed: nothing to tell
				err = rig.CheckComplete(events)
			}
			return err == nil
		})
		if err != nil {
			report("events of %s: %v\nall: %v", id, err, s.events.Events(id))
		}
	}
}

// tolerated is what may be left behind. The runc shim's delete command leaves
// the socket of a shim that was killed.
func (s *scene) tolerated() []string {
	if s.shimKilled && !ours() {
		return []string{"file S " + s.daemon.State() + "/s/"}
	}
	return nil
}

// maxName keeps ids below the 76 characters that containerd allows.
const maxName = 60

// newID makes a container id that names the test and is unique in it.
func (s *scene) newID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprintf("%s-%d", rig.IDOf(s.t.Name(), maxName), len(s.ids))
	s.ids = append(s.ids, id)
	return id
}

// keepIO remembers a process's streams, to be closed after the test.
func (s *scene) keepIO(io cio.IO) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ios = append(s.ios, io)
}

// removeAll removes what the test left: quietly, since most tests have
// removed theirs, and by force.
func (s *scene) removeAll() {
	for _, id := range s.ids {
		if err := s.remove(id); err != nil {
			s.t.Errorf("clean up %s: %v", id, err)
		}
	}
}

func (s *scene) remove(id string) error {
	ctx, cancel := context.WithTimeout(s.ctx, bound)
	defer cancel()
	c, err := s.daemon.Client().LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if task, err := c.Task(ctx, nil); err == nil {
		if _, err := task.Delete(ctx, containerd.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	} else if !errdefs.IsNotFound(err) {
		return err
	}
	return c.Delete(ctx, containerd.WithSnapshotCleanup)
}

// sub runs a subtest on the scene: what fails in it is the subtest's.
func (s *scene) sub(t *testing.T, name string, test func()) {
	t.Run(name, func(t *testing.T) {
		outer := s.t
		defer func() { s.t = outer }()
		s.t = t
		test()
	})
}

// must stops the test at an error.
func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// want compares two values.
func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}
