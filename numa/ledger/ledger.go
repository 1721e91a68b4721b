package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"containerd-shim-numa-v1/numa"
)

const (
	// DefaultDir is where the ledger is unless a Config says otherwise: in
	// memory, and gone with a reboot, as its contents should be.
	DefaultDir = "/run/containerd-numa"

	// defaultPatience is more than 100 times as long as the lock is held for a
	// thousand containers, and not long beside the start of a container.
	defaultPatience = 250 * time.Millisecond

	// sweepEvery is after how many changes the entries of the dead are looked
	// for, which costs two reads in /proc for each container. It is a prime, so
	// that where every container makes the same number of changes it is not
	// always the turn of one that does not look.
	sweepEvery = 61
)

// Errors that a caller may want to tell apart. A container whose claim failed
// for one of them runs unplaced.
var (
	// ErrBusy is wrapped where the lock could not be had in time.
	ErrBusy = errors.New("the ledger is locked by another process")
	// ErrNewer is wrapped where a newer version of this package wrote the
	// ledger. An older one only leaves it alone.
	ErrNewer = errors.New("the ledger is of a newer version")
	// ErrFull is wrapped where the ledger would become larger than it may.
	ErrFull = errors.New("the ledger is full")
	// ErrNoEntry is wrapped where a container is not in the ledger.
	ErrNoEntry = errors.New("not in the ledger")
)

// Config says where the ledger is and whose it is.
type Config struct {
	// Dir is the ledger's directory, DefaultDir if empty. It is made, 0700, if
	// missing, and refused if anyone but its owner, this process's effective
	// user, could use it. Its parent must exist.
	Dir string
	// Topology is the machine, until SetTopology. Claims outlive a change of
	// it (a CPU that is taken offline): which of their CPUs are there is the
	// reader's to ask.
	Topology *numa.Topology
	// Patience bounds the wait for a lock whose holder does nothing, 250 ms
	// if zero. Behind others that get on with their work a caller waits for
	// up to eight times as long.
	Patience time.Duration

	// Roots are directories <root>/<namespace>/<id> of bundles in which
	// claims are looked for when the ledger is rebuilt, besides those that
	// claims have come from; that of a default containerd if nil.
	Roots []string
	// Changed, if set, is called when the CPUs of shared containers of this
	// process have changed by a call of this process, which is not woken by
	// signal. It is called by that call, without the lock.
	Changed func()
	// Defect, if set, is told of what is wrong with the ledger and has not
	// made a call fail, such as damage that it was rebuilt for. It is called
	// by that call, without the lock.
	Defect func(error)
}

// Ledger is what all shims of a host know of each other's claims. It holds no
// resources between calls, and its methods may be called concurrently.
type Ledger struct {
	config   Config
	topology atomic.Pointer[numa.Topology]
	boot     string
	self     Process
	owed     owed
	// step is told, in tests, of each point at which dying would be worst.
	step func(string)
}

// Open prepares the ledger. It keeps no lock and no descriptor. An error says
// why there can be none on this machine.
func Open(c Config) (*Ledger, error) {
	if c.Topology == nil {
		return nil, errors.New("open ledger: no topology")
	}
	if c.Dir == "" {
		c.Dir = DefaultDir
	}
	if c.Patience <= 0 {
		c.Patience = defaultPatience
	}
	if c.Roots == nil {
		c.Roots = []string{defaultRoot}
	}
	l := &Ledger{config: c, step: func(string) {}}
	l.SetTopology(c.Topology)
	var err error
	if l.boot, err = bootID(); err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", c.Dir, err)
	}
	if l.self, err = self(); err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", c.Dir, err)
	}
	d, err := openDir(c.Dir, true)
	if err != nil {
		return nil, err
	}
	d.close()
	return l, nil
}

// SetTopology tells of another machine than there was: CPUs or nodes came or
// went.
func (l *Ledger) SetTopology(t *numa.Topology) { l.topology.Store(t) }

// Confirm notes the container's init and returns its claim and those of the
// others as of now. The error wraps ErrNoEntry if the container has none.
func (l *Ledger) Confirm(ctx context.Context, bundle string, init Process) (own numa.Claim, others []numa.Claim, err error) {
	err = l.change(ctx, func(s *state) (bool, error) {
		i, ok := s.find(bundle)
		if !ok {
			return false, ErrNoEntry
		}
		e := s.rows[i].Entry
		e.Init = init
		if err := e.check(); err != nil {
			return false, err
		}
		s.put(e)
		own, others = e.Claim, s.others(bundle)
		return true, nil
	})
	if err != nil {
		return numa.Claim{}, nil, fmt.Errorf("confirm %s: %w", bundle, err)
	}
	return own, others, nil
}

// Replace enters a claim for which nothing has to be decided, such as a part of
// the one before. One that it cannot enter is owed, as Release does it.
func (l *Ledger) Replace(ctx context.Context, bundle string, c numa.Claim) error {
	if err := (&Entry{Bundle: bundle, Claim: c, Owner: l.self}).check(); err != nil {
		return fmt.Errorf("replace the claim of %s: %w", bundle, err)
	}
	err := l.change(ctx, func(s *state) (bool, error) {
		s.replace(bundle, c, l.self)
		return true, nil
	})
	if err != nil {
		l.owed.claim(bundle, &c)
		return fmt.Errorf("replace the claim of %s: %w", bundle, err)
	}
	return nil
}

// Release drops an entry; that there is none is no error. One that it cannot
// drop is owed: it goes with the next change that succeeds, see Settle.
func (l *Ledger) Release(ctx context.Context, bundle string) error {
	err := l.change(ctx, func(s *state) (bool, error) { return s.drop(bundle), nil })
	if err != nil {
		l.owed.claim(bundle, nil)
		return fmt.Errorf("release %s: %w", bundle, err)
	}
	return nil
}

// Sweep drops the entries whose owner and init are both dead, and tells how
// many there were.
func (l *Ledger) Sweep(ctx context.Context) (dropped int, err error) {
	entries, err := l.Read()
	if err != nil {
		return 0, err
	}
	dead := l.dead(entries)
	if len(dead) == 0 {
		return 0, nil
	}
	err = l.change(ctx, func(s *state) (bool, error) {
		dropped = s.dropDead(dead)
		return dropped > 0, nil
	})
	if err != nil {
		return 0, fmt.Errorf("drop the entries of the dead: %w", err)
	}
	return dropped, nil
}

// Read reads all entries, ascending by bundle, without a lock, as they were
// after the last change; what a defective ledger should hold is read from the
// bundles.
func (l *Ledger) Read() ([]Entry, error) {
	s, err := l.peek()
	if err != nil {
		return nil, err
	}
	return s.entries(), nil
}

// dead are the processes of those entries that nobody lives for any more. A
// process that is dead stays so: that one with its pid started at the same
// clock tick does not come to pass.
func (l *Ledger) dead(entries []Entry) map[Process]bool {
	known := map[Process]bool{l.self: false}
	isDead := func(p Process) bool {
		dead, ok := known[p]
		if !ok {
			dead = l.isDead(p)
			known[p] = dead
		}
		return dead
	}
	for _, e := range entries {
		if isDead(e.Owner) && e.Init.Pid != 0 {
			isDead(e.Init)
		}
	}
	for p, dead := range known {
		if !dead {
			delete(known, p)
		}
	}
	return known
}
