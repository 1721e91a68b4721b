package ledger

import (
	"context"
	"fmt"

	"containerd-shim-numa-v1/numa"
)

// Outcome is what became of a container.
type Outcome int

const (
	// Placed on one node.
	Placed Outcome = iota
	// Spilled over more than one.
	Spilled
	// Unplaced by its own wish: accounted for only.
	Unplaced
	// Refused, because its policy accepts nothing that there is.
	Refused
	// FailedOpen: run unplaced because of an error.
	FailedOpen

	outcomes int = iota
)

// Counters are the numbers of containers by Outcome since the ledger was
// begun: since boot, or since it was rebuilt.
type Counters [outcomes]uint64

// Count counts a container. Reserve counts those that it enters or refuses,
// so that this is for FailedOpen; those that failed because of the ledger
// itself cannot be counted in it.
func (l *Ledger) Count(ctx context.Context, o Outcome) error {
	if o < 0 || int(o) >= outcomes {
		return fmt.Errorf("count outcome %d: there are %d", o, outcomes)
	}
	err := l.change(ctx, func(s *state) (bool, error) {
		s.counters[o]++
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("count a container: %w", err)
	}
	return nil
}

// Counters reads the counters, without a lock.
func (l *Ledger) Counters() (Counters, error) {
	s, err := l.peek()
	if err != nil {
		return Counters{}, err
	}
	return s.counters, nil
}

// Demand reads the histogram of the sizes of requests, without a lock.
func (l *Ledger) Demand() (numa.Demand, error) {
	s, err := l.peek()
	if err != nil {
		return numa.Demand{}, err
	}
	return s.demand, nil
}

func outcomeOf(c numa.Claim) Outcome {
	switch c.Nodes.Len() {
	case 0:
		return Unplaced
	case 1:
		return Placed
	}
	return Spilled
}
