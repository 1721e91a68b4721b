package task

import (
	"errors"
	"testing"

	taskapi "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
)

var allStatuses = []Status{Creating, Created, Starting, Running, Pausing, Paused, Resuming, Checkpointing, CheckpointingPaused, Stopped, Deleting, Deleted}

func TestTransitions(t *testing.T) {
	if len(transitions) != len(allStatuses) {
		t.Fatalf("%d states in the table, %d exist", len(transitions), len(allStatuses))
	}
	for _, from := range allStatuses {
		reached := map[Status]bool{}
		var visit func(Status)
		visit = func(s Status) {
			for _, next := range transitions[s] {
				if !reached[next] {
					reached[next] = true
					visit(next)
				}
			}
		}
		visit(from)
		if from != Deleted && !reached[Deleted] {
			t.Errorf("a %s process can never be deleted", from)
		}
		if reached[Creating] {
			t.Errorf("a %s process can be created again", from)
		}
		// Whatever exists may exit at any time, but its exit waits for the end
		// of a checkpoint; and what has exited does not run again.
		held := from == Checkpointing || from == CheckpointingPaused
		if s := from; s.exists() && s.to(Stopped) == held {
			t.Errorf("a %s process cannot exit", from)
		}
		if (from == Stopped || from == Deleted) && (reached[Running] || reached[Paused]) {
			t.Errorf("a %s process can run again", from)
		}
		for _, to := range allStatuses {
			s := from
			if moved := s.to(to); moved && s != to || !moved && s != from {
				t.Errorf("%s to %s: moved %v, is %s", from, to, moved, s)
			}
		}
	}
}

func TestAllow(t *testing.T) {
	for _, s := range allStatuses {
		for _, in := range allStatuses {
			err := s.allow("poke", in)
			want := error(errdefs.ErrFailedPrecondition)
			switch s {
			case in:
				want = nil
			case Deleted:
				want = errdefs.ErrNotFound
			}
			if !errors.Is(err, want) {
				t.Errorf("%s allowed in %s: %v, want %v", s, in, err, want)
			}
		}
	}
	err := Running.allow("delete", Created, Stopped)
	if got := err.Error(); got != "cannot delete a running process: failed precondition" {
		t.Error(got) // clients know the words
	}
}

func TestStatusNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range allStatuses {
		if seen[s.String()] || s.String() == "" {
			t.Errorf("name %q", s)
		}
		seen[s.String()] = true
		if s != Creating && s.wire() == taskapi.Status_UNKNOWN {
			t.Errorf("%s has no form on the wire", s)
		}
	}
	if got := Status(200); got.String() != "status(200)" || got.wire() != taskapi.Status_UNKNOWN || got.exists() {
		t.Error(got)
	}
}
