package ledger

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"containerd-shim-numa-v1/numa"
)

// Decide makes an entry's claim from what the others hold, under the lock: it
// is quick and touches nothing but memory. free memory is the caller's to add.
// It may be called twice for one Reserve.
type Decide func(others []numa.Claim, d numa.Demand) (numa.Claim, error)

// Reserve enters a container, or changes its entry. Owner is this process.
// Entries of the dead are dropped when the decision would otherwise fail or
// need more than one node, when there are too many entries, and every so often.
// Shims whose shared containers' CPUs changed by it are woken (see WakeSignal).
//
// The error is Decide's, or wraps ErrBusy, ErrNewer or ErrFull, or is that of
// a system call; without error the claim is the ledger's.
func (l *Ledger) Reserve(ctx context.Context, bundle string, decide Decide) (numa.Claim, error) {
	if err := checkBundle(bundle); err != nil {
		return numa.Claim{}, err
	}
	r := reservation{bundle: bundle, decide: decide}
	err := l.change(ctx, func(s *state) (bool, error) { return r.first(l, s) })
	if errors.Is(err, ErrFull) {
		r.wanting, err = l.Read()
	}
	if err != nil {
		return numa.Claim{}, fmt.Errorf("reserve for %s: %w", bundle, err)
	}
	if r.wanting != nil {
		dead := l.dead(r.wanting)
		err := l.change(ctx, func(s *state) (bool, error) {
			s.dropDead(dead)
			return r.enter(l, s)
		})
		if err != nil {
			return numa.Claim{}, fmt.Errorf("reserve for %s: %w", bundle, err)
		}
	}
	if r.sweep {
		// The container has its claim; that others keep theirs a little
		// longer is no reason to fail.
		_, _ = l.Sweep(ctx)
	}
	return r.claim, nil
}

// reservation is one call of Reserve.
type reservation struct {
	bundle string
	decide Decide

	claim numa.Claim
	// wanting are all entries, if the first decision was not a good one, or
	// there was no room for its claim.
	wanting []Entry
	// sweep tells that it is this call's turn to look for the dead.
	sweep bool
}

// first decides and leaves the state alone if the dead may stand in the way of
// a better decision: who is dead is found out without the lock.
func (r *reservation) first(l *Ledger, s *state) (bool, error) {
	claim, err := r.decide(s.others(r.bundle), s.demand)
	refused := errors.Is(err, numa.ErrRefused)
	if err != nil && !refused {
		return false, err
	}
	if refused || claim.Nodes.Len() > 1 {
		r.wanting = s.entries()
		return false, nil
	}
	return r.put(l, s, claim)
}

// enter decides for good. A refusal is written as well, to be counted.
func (r *reservation) enter(l *Ledger, s *state) (bool, error) {
	claim, err := r.decide(s.others(r.bundle), s.demand)
	if errors.Is(err, numa.ErrRefused) {
		s.counters[Refused]++
		return true, err
	}
	if err != nil {
		return false, err
	}
	return r.put(l, s, claim)
}

// put enters what was decided.
func (r *reservation) put(l *Ledger, s *state, claim numa.Claim) (bool, error) {
	e := Entry{Bundle: r.bundle, Claim: claim, Owner: l.self}
	i, known := s.find(r.bundle)
	// Another's entry is that of an earlier container with the same id, whose
	// shim died.
	known = known && s.rows[i].Owner == l.self
	if known {
		e.Init = s.rows[i].Init
	}
	if err := e.check(); err != nil {
		return false, err
	}
	if !known {
		s.counters[outcomeOf(claim)]++
		s.arrive(claim)
	}
	s.put(e)
	r.claim = claim
	// The generation is the one before this change.
	r.sweep = s.generation%sweepEvery == sweepEvery-1
	s.root = filepath.Dir(filepath.Dir(r.bundle))
	return true, nil
}
