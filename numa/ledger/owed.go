package ledger

import (
	"context"
	"fmt"
	"maps"
	"sync"
)

// owed is what a Ledger has to tell the others and could not, or has not. It
// is entered with the next change.
type owed struct {
	mu       sync.Mutex // guards what follows
	released map[string]bool
	counted  Counters
}

func (o *owed) release(bundle string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.released == nil {
		o.released = map[string]bool{}
	}
	o.released[bundle] = true
}

func (o *owed) count(outcome Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counted[outcome]++
}

func (o *owed) isEmpty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.released) == 0 && o.counted == Counters{}
}

// debt is what was owed at some time.
type debt struct {
	released map[string]bool
	counted  Counters
}

// enter enters all that is owed into s. It is owed until paid is called with
// the result, when s has been written. dirty tells that s is another now.
func (o *owed) enter(s *state) (d debt, dirty bool) {
	o.mu.Lock()
	d = debt{released: maps.Clone(o.released), counted: o.counted}
	o.mu.Unlock()
	for bundle := range d.released {
		// Never that of a later container: nobody enters a bundle again
		// before this is done.
		dirty = s.drop(bundle) || dirty
	}
	for i, n := range d.counted {
		s.counters[i] += n
		dirty = dirty || n > 0
	}
	return d, dirty
}

func (o *owed) paid(d debt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for bundle := range d.released {
		delete(o.released, bundle)
	}
	for i, n := range d.counted {
		o.counted[i] -= n
	}
}

// Settle enters what is owed: the releases that failed, and what Count was
// told. Any other change does so too; without anything owed it does nothing.
func (l *Ledger) Settle(ctx context.Context) error {
	if l.owed.isEmpty() {
		return nil
	}
	if err := l.change(ctx, func(*state) (bool, error) { return false, nil }); err != nil {
		return fmt.Errorf("enter what is owed: %w", err)
	}
	return nil
}
