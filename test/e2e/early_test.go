package e2e

import (
	"sync"
	"testing"
)

// TestEarlyExits runs programs that end at once: each exit is told, once and
// after the start, whether it comes before or after Start has returned.
func TestEarlyExits(t *testing.T) {
	s := begin(t)
	for range *shortFlag {
		c := s.run([]string{"/bin/true"})
		if code := c.finish(); code != 0 {
			t.Errorf("%s exited with %d", c.ID(), code)
		}
	}
}

func TestEarlyExitsOfExecs(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	for i := range *shortFlag {
		p := c.exec(execID("true", i), []string{"/bin/true"})
		if code := p.status(); code != 0 {
			t.Errorf("%s exited with %d", p.ID(), code)
		}
		p.delete()
	}
	c.stop()
}

// TestEarlyExitsAtOnce does so for many execs of one container together.
func TestEarlyExitsAtOnce(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	var group sync.WaitGroup
	for i := range *concurrentFlag {
		p := c.execCreate(execID("at-once", i), []string{"/payload", "exit", "3"})
		group.Go(func() {
			if err := p.Start(s.ctx); err != nil {
				t.Error(err)
				return
			}
			select {
			case status := <-p.exited:
				if status.ExitCode() != 3 {
					t.Errorf("%s exited with %d", p.ID(), status.ExitCode())
				}
			case <-timeout():
				t.Errorf("no exit of %s", p.ID())
			}
			if _, err := p.Delete(s.ctx); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	c.stop()
}
