package e2e

import (
	"fmt"
	"sync"
	"testing"

	"containerd-shim-numa-v1/test/rig"
)

func execID(name string, i int) string { return fmt.Sprintf("%s-%d", name, i) }

// TestCycles runs and deletes containers one after another, every second in a
// user namespace. The census at its end is the test. Without idmapped mounts
// the client makes a changed copy of the image for each mapping, and many
// clients at once get in each other's way; so no user namespaces then.
func TestCycles(t *testing.T) {
	s := begin(t)
	for i := range *cyclesFlag {
		opts := []option{withImage(s.layered)}
		if i%2 == 1 && s.idmaps {
			opts = append(opts, withUserNamespace(mappedRoot))
		}
		c := s.run([]string{"/payload", "exit", "3"}, opts...)
		want(t, "exit status", c.finish(), 3)
	}
}

// TestManyAtOnce runs and deletes containers in rounds of many together.
func TestManyAtOnce(t *testing.T) {
	s := begin(t)
	for range *roundsFlag {
		var group sync.WaitGroup
		for i := range *concurrentFlag {
			opts := []option{withID(s.newID()), withImage(s.layered)}
			if i%2 == 1 && s.idmaps {
				opts = append(opts, withUserNamespace(mappedRoot))
			}
			group.Go(func() {
				if err := s.cycle(opts...); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
}

// cycle is one container's life, for goroutines that may not end the test.
func (s *scene) cycle(opts ...option) error {
	c, err := s.tryCreate([]string{"/payload", "exit", "3"}, opts...)
	if err != nil {
		return err
	}
	if err := c.Start(s.ctx); err != nil {
		return err
	}
	select {
	case status := <-c.exited:
		if status.ExitCode() != 3 {
			return fmt.Errorf("%s exited with %d, want 3", c.ID(), status.ExitCode())
		}
	case <-timeout():
		return fmt.Errorf("no exit of %s", c.ID())
	}
	_, err = c.Delete(s.ctx)
	return err
}

// Memory of a shim that has served containers and execs: it may grow by what
// its heap keeps free, not by each of them.
const (
	growthWarmUp = 20 // containers before the first measurement
	growthLimit  = 1536
)

// TestShimMemoryIsFlat runs containers and execs through one shim and compares
// its memory before and after.
func TestShimMemoryIsFlat(t *testing.T) {
	s := begin(t)
	sandbox := s.newID()
	pause := s.run(idle, withID(sandbox), withAnnotation(sandboxAnnotation, sandbox))
	load := func(n int) {
		for i := range n {
			c := s.run([]string{"/bin/true"}, withAnnotation(sandboxAnnotation, sandbox))
			want(t, "exit status", c.finish(), 0)
			p := pause.exec(execID("memory", i), []string{"/bin/true"})
			want(t, "exit status of exec", p.status(), 0)
			p.delete()
		}
	}
	pss := func() int {
		for _, shim := range rig.Shims(rig.ShimBinary(*runtimeFlag)) {
			if shim.ID == sandbox {
				kib, err := rig.PSS(shim.Pid)
				s.must(err)
				return kib
			}
		}
		t.Fatal("found no shim of the pod")
		return 0
	}
	load(growthWarmUp)
	before := pss()
	load(*cyclesFlag)
	after := pss()
	t.Logf("PSS of the shim: %d KiB, after %d more containers and execs %d KiB", before, *cyclesFlag, after)
	if after > before+growthLimit {
		t.Errorf("the shim grew by %d KiB, more than %d", after-before, growthLimit)
	}
	pause.stop()
}
