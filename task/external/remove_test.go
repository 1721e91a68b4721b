package external

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// remover is one whose cgroups the runtime has removed.
func (r rig) remover(t *testing.T) Remover {
	return Remover{Binary: r.binary, RemoveCgroup: func(context.Context, string, string) error {
		t.Error("the runtime knows the container")
		return nil
	}}
}

// A container without a shim is ended and removed, in whatever state it is,
// and nothing else.
func TestRemove(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r rig) {
		other := r.run(t, specOf(newID(), "sleep", "1000"))
		for name, c := range map[string]struct {
			spec *specs.Spec
			in   func(*testing.T, *container)
		}{
			"created": {specOf(newID(), "sleep", "1000"), func(*testing.T, *container) {}},
			"running": {specOf(newID(), "sleep", "1000"), func(t *testing.T, c *container) { must(t, c.Start(t.Context())) }},
			"paused": {specOf(newID(), "sleep", "1000"), func(t *testing.T, c *container) {
				must(t, c.Start(t.Context()))
				must(t, c.Pause(t.Context()))
			}},
			"leftovers": {sharedPIDs(specOf(newID(), shell("sleep 1000 & sleep 1000 & exit 0")...)), func(t *testing.T, c *container) {
				must(t, c.Start(t.Context()))
				c.init.Status(t)
			}},
		} {
			t.Run(name, func(t *testing.T) {
				victim := r.create(t, c.spec)
				c.in(t, victim)
				for range 2 {
					must(t, r.remover(t).Remove(t.Context(), victim.root, victim.id, victim.bundle))
				}
				victim.init.Status(t)
				if left := cgroupDirs(victim.cgroupPath()); len(left) > 0 {
					t.Errorf("cgroups left: %q", left)
				}
			})
		}
		if other.init.Gone() {
			t.Error("another container is gone")
		}
	})
}

// What a runtime did not finish is removed with the cgroup that it has made.
func TestRemoveUnfinished(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r rig) {
		q := request(t, specOf(newID(), "true"))
		removed := 0
		remover := Remover{Binary: r.binary, RemoveCgroup: func(_ context.Context, id, bundle string) error {
			removed++
			if id != q.ID || bundle != q.Bundle {
				t.Errorf("cgroup of %s in %s", id, bundle)
			}
			return nil
		}}
		remove := func() error { return remover.Remove(t.Context(), q.Root, q.ID, q.Bundle) }
		must(t, remove())
		if removed != 0 {
			t.Error("the cgroup of a container that there is not")
		}
		must(t, os.MkdirAll(filepath.Join(q.Root, q.ID), 0o700))
		must(t, remove())
		must(t, remove())
		if removed != 1 {
			t.Errorf("the cgroup was removed %d times", removed)
		}
		nothingLeft(t, q)

		must(t, os.MkdirAll(filepath.Join(q.Root, q.ID), 0o700))
		remover.Binary = "/nonexistent"
		if err := remove(); !errors.Is(err, os.ErrNotExist) || removed != 1 {
			t.Errorf("without the runtime: %v", err)
		}
		must(t, os.Remove(filepath.Join(q.Root, q.ID)))
	})
}
