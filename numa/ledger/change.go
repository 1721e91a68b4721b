package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// change edits the ledger under its lock: edit touches nothing but memory and
// says whether to write; an error of its own comes back after that. What is
// owed is entered before. Whoever has to know of the change is told when the
// lock is free again.
func (l *Ledger) change(ctx context.Context, edit func(*state) (write bool, err error)) error {
	d, err := openDir(l.config.Dir, true)
	if err != nil {
		return err
	}
	defer d.close()
	news, err := l.locked(ctx, d, edit)
	l.tell(news)
	return err
}

// news is what others have to know of a change.
type news struct {
	// defects are what was wrong and did not prevent the change; some are nil.
	defects []error
	// owners are the shims whose shared containers' CPUs have changed.
	owners []Process
}

func (l *Ledger) locked(ctx context.Context, d directory, edit func(*state) (bool, error)) (n news, err error) {
	unlock, err := d.lock(ctx, l.config.Patience)
	if err != nil {
		return n, err
	}
	defer unlock()
	l.step("locked")
	s, err := l.load(d)
	if errors.Is(err, errDefect) {
		n.defects = append(n.defects, err)
		if failed := d.sideline(); failed != nil {
			return n, errors.Join(err, failed)
		}
		l.step("sidelined")
		s, err = l.rebuild(d), nil
	}
	if err != nil {
		return n, err
	}
	debt, dirty := l.owed.enter(s, l.self)
	write, err := edit(s)
	if !write && !dirty {
		l.owed.paid(debt)
		return n, err
	}
	s.generation++
	text, failed := s.encode()
	if failed == nil {
		n.defects = append(n.defects, l.remember(d, s.root))
		failed = d.write(stateFile, text, l.step)
	}
	if failed != nil {
		return n, errors.Join(err, failed)
	}
	l.owed.paid(debt)
	n.owners = s.affected(l.topology.Load())
	return n, err
}

// remember notes where bundles are, for a rebuild. Without it a claim would be
// lost if the ledger was lost as well, which is no reason to do without claims.
func (l *Ledger) remember(d directory, root string) error {
	if root == "" || root == "/" || slices.Contains(l.config.Roots, root) {
		return nil
	}
	return d.addRoot(root, l.step)
}

// load reads the state. The error wraps errDefect if it has to be rebuilt.
func (l *Ledger) load(d directory) (*state, error) {
	text, err := d.read(stateFile, maxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return l.rebuild(d), nil
	}
	if err != nil {
		return nil, err
	}
	s, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("read %s/%s: %w", d.path, stateFile, err)
	}
	if s.boot != l.boot {
		return nil, defect("%s/%s is of boot %s, this is %s", d.path, stateFile, s.boot, l.boot)
	}
	// Shims that started before a CPU went off line know another machine than
	// those that start now. They live side by side, so the claims stay.
	s.topology = l.topology.Load().Hash
	return s, nil
}

// peek is the state as a reader without the lock sees it: nothing is moved or
// written.
func (l *Ledger) peek() (*state, error) {
	d, err := openDir(l.config.Dir, false)
	if err != nil {
		return nil, err
	}
	defer d.close()
	s, err := l.load(d)
	if errors.Is(err, errDefect) {
		return l.rebuild(d), nil
	}
	return s, err
}
