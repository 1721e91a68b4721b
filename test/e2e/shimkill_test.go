package e2e

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"containerd-shim-numa-v1/test/rig"
)

// latestKill is beyond the time a container takes to start, so that shims are
// killed during every step of it and while the container runs.
const latestKill = 150 * time.Millisecond

// killShim kills the shim that serves the container, if it runs. It spares the
// command that starts it: that may have ended by the time of the signal, which
// then kills nobody.
func killShim(id string) bool {
	for _, shim := range rig.Shims(rig.ShimBinary(*runtimeFlag)) {
		if shim.ID == id && shim.Command == "" {
			return syscall.Kill(shim.Pid, syscall.SIGKILL) == nil
		}
	}
	return false
}

// TestShimKilledUnderRunningContainer kills the shim of a running container:
// the container dies, its exit is told once with 137, and nothing is left.
func TestShimKilledUnderRunningContainer(t *testing.T) {
	for name, prepare := range map[string]func(s *scene, c *container){
		"running":    func(*scene, *container) {},
		"paused":     func(s *scene, c *container) { s.must(c.Pause(s.ctx)) },
		"with execs": func(_ *scene, c *container) { c.exec("e", []string{"/bin/sleep", "1000"}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			s.gap, s.shimKilled = true, true
			c := s.run(idle)
			prepare(s, c)
			if !killShim(c.ID()) {
				t.Fatal("found no shim to kill")
			}
			s.wantKilledOnce(c.ID())
		})
	}
}

// wantKilledOnce sees exactly one exit of init, with 137, and its deletion.
func (s *scene) wantKilledOnce(id string) {
	s.t.Helper()
	if _, err := s.events.Await(bound, "/tasks/delete", id, ""); err != nil {
		s.t.Error(err)
	}
	exits := 0
	for _, e := range s.events.Events(id) {
		if e.Topic == "/tasks/exit" && e.Process == "" {
			exits++
			want(s.t, "exit status of "+id, e.Status, 137)
		}
	}
	want(s.t, "exits of "+id, exits, 1)
}

// TestShimKilledAtRandom kills the shim at a random moment of a container's
// start or life. Whatever had happened by then, nothing is left, and the id
// can be used again.
func TestShimKilledAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 0))
	for i := range *shimKillsFlag {
		moment := time.Duration(moments.Int64N(int64(latestKill)))
		t.Run(fmt.Sprint(i), func(t *testing.T) { killAt(t, moment) })
	}
}

func killAt(t *testing.T, moment time.Duration) {
	s := begin(t)
	s.gap, s.shimKilled = true, true
	id := s.newID()
	killed := make(chan bool, 1)
	go func() {
		time.Sleep(moment)
		killed <- rig.Eventually(bound, func() bool { return killShim(id) })
	}()
	c, err := s.tryCreate(idle, withID(id))
	if err == nil {
		err = c.Start(s.ctx)
	}
	hit := <-killed
	t.Logf("killed after %s: %t; start: %v", moment, hit, err)
	switch {
	case err == nil && hit:
		s.wantKilledOnce(id)
	case err == nil:
		t.Error("found no shim to kill")
	}
	if err := s.remove(id); err != nil {
		t.Error(err)
	}
	// containerd cleans up after a dead shim on its own time.
	var again *container
	if !rig.Eventually(bound, func() bool {
		again, err = s.tryCreate([]string{"/payload", "exit", "8"}, withID(id))
		if err != nil {
			s.remove(id)
		}
		return err == nil
	}) {
		t.Fatalf("the id of a killed container is not free again: %v", err)
	}
	s.must(again.Start(s.ctx))
	want(t, "exit status of the id's next container", again.finish(), 8)
}
