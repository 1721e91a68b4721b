package ledger

import (
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

// Count counts a container, with the next change: see Settle. Reserve counts
// those that it enters or refuses, so that this is for FailedOpen.
func (l *Ledger) Count(o Outcome) { l.owed.count(o) }

// Counters reads the counters, without a lock.
func (l *Ledger) Counters() (Counters, error) {
	s, err := l.peek()
	if err != nil {
		return Counters{}, err
	}
	return s.counters, nil
}

// ReadCounters reads the counters of the ledger in a directory for somebody who
// has no claims there. The error wraps fs.ErrNotExist if there is none.
func ReadCounters(dir string) (Counters, error) {
	d, err := openDir(dir, false)
	if err != nil {
		return Counters{}, err
	}
	defer d.close()
	text, err := d.read(stateFile, maxSize)
	if err != nil {
		return Counters{}, err
	}
	s, err := parse(text)
	if err != nil {
		return Counters{}, fmt.Errorf("read %s/%s: %w", d.path, stateFile, err)
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
