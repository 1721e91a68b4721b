package ledger

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"containerd-shim-numa-v1/numa"
)

// owed is what a Ledger has to tell the others and could not, or has not. It
// is entered with the next change.
type owed struct {
	mu sync.Mutex // guards what follows
	debt
}

// debt is what is owed at some time.
type debt struct {
	// claims are those of bundles, nil for one that is released.
	claims  map[string]*numa.Claim
	counted Counters
}

func (o *owed) claim(bundle string, c *numa.Claim) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.claims == nil {
		o.claims = map[string]*numa.Claim{}
	}
	o.claims[bundle] = c
}

func (o *owed) count(outcome Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counted[outcome]++
}

func (o *owed) isEmpty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.claims) == 0 && o.counted == Counters{}
}

// enter enters all that is owed by a process into s. It is owed until paid is
// called with the result, when s has been written. dirty tells that s is
// another now. What has another owner by now is that of a later container with
// the same bundle, and stays; of this process there is none, since it enters
// what it owes before it enters a bundle again.
func (o *owed) enter(s *state, owner Process) (d debt, dirty bool) {
	o.mu.Lock()
	d = debt{claims: maps.Clone(o.claims), counted: o.counted}
	o.mu.Unlock()
	for bundle, claim := range d.claims {
		if i, ok := s.find(bundle); ok && s.rows[i].Owner != owner {
			continue
		}
		if claim == nil {
			dirty = s.drop(bundle) || dirty
			continue
		}
		s.replace(bundle, *claim, owner)
		dirty = true
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
	for bundle, claim := range d.claims {
		if now, ok := o.claims[bundle]; ok && now == claim {
			delete(o.claims, bundle)
		}
	}
	for i, n := range d.counted {
		o.counted[i] -= n
	}
}

// Settle enters what is owed: releases and claims that could not be entered,
// and what Count was told. Any other change does so too; without anything owed
// it does nothing.
func (l *Ledger) Settle(ctx context.Context) error {
	if l.owed.isEmpty() {
		return nil
	}
	if err := l.change(ctx, func(*state) (bool, error) { return false, nil }); err != nil {
		return fmt.Errorf("enter what is owed: %w", err)
	}
	return nil
}
