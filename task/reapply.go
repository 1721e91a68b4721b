package task

import (
	"context"
	"os"
	"sync/atomic"
	"time"
)

// What a look has left to do is tried again after a while, which doubles from
// retryMin to retryMax.
const (
	retryMin = time.Second
	retryMax = time.Minute
)

// reapplier gives the containers of a service the CPUs that are theirs when
// those that other containers own have changed, and has the placer settle with
// the ledger. It is one goroutine, from NewService to Close.
type reapplier struct {
	// nudge has a value when a container of this process has made a change
	// that concerns another of its containers, or could not make one.
	nudge chan struct{}
	// looks counts those that have begun.
	looks atomic.Uint64
	stop  context.CancelFunc
	done  chan struct{}
}

func newReapplier() *reapplier {
	return &reapplier{nudge: make(chan struct{}, 1), done: make(chan struct{})}
}

// changed may be called by anyone at any time.
func (r *reapplier) changed() {
	select {
	case r.nudge <- struct{}{}:
	default: // a look is due anyway
	}
}

// run looks whenever it is woken, by other processes or by this one, and then
// settles until nothing is left.
func (r *reapplier) run(wake <-chan os.Signal, look func(context.Context), settle func(context.Context) (left bool)) {
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() {
		defer close(r.done)
		var again <-chan time.Time
		wait := retryMin
		for {
			select {
			case <-wake:
				r.looks.Add(1)
				look(ctx)
			case <-r.nudge:
				r.looks.Add(1)
				look(ctx)
			case <-again:
			case <-ctx.Done():
				return
			}
			if !settle(ctx) {
				again, wait = nil, retryMin
				continue
			}
			again = time.After(wait)
			wait = min(2*wait, retryMax)
		}
	}()
}

// close ends the goroutine and waits for it, not longer than ctx allows.
func (r *reapplier) close(ctx context.Context) error {
	if r.stop == nil {
		return nil
	}
	r.stop()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reapplyAll gives each container the CPUs that are its now.
func (s *Service) reapplyAll(ctx context.Context) { s.reapply(ctx, s.all()...) }

func (s *Service) reapply(ctx context.Context, cs ...*Container) {
	for _, c := range cs {
		c.placed.Reapply(ctx, c.applyLimits)
	}
}

// all are the containers that there are.
func (s *Service) all() []*Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*Container
	for _, c := range s.containers {
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}
