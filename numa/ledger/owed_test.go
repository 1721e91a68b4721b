package ledger

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa"
)

// held has another hold the lock of a ledger, without doing anything, until
// it is told to let go.
func held(t *testing.T, l *Ledger) (letGo func()) {
	t.Helper()
	f, err := os.Open(l.config.Dir)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	return func() { must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN)) }
}

// TestOwedRelease fails to release a container because of a lock: whatever the
// next change is makes up for it.
func TestOwedRelease(t *testing.T) {
	for name, c := range map[string]struct {
		next func(t *testing.T, l *Ledger, owed string)
		left []string
	}{
		"settling": {func(t *testing.T, l *Ledger, _ string) { must(t, l.Settle(t.Context())) }, nil},
		"another's release": {func(t *testing.T, l *Ledger, _ string) {
			must(t, l.Release(t.Context(), bundle(l, "none")))
		}, nil},
		"another container": {func(t *testing.T, l *Ledger, _ string) {
			// It gets the CPU that would be owned twice if it were not free.
			claim, err := l.Reserve(t.Context(), bundle(l, "b"), oneFree)
			must(t, err)
			if !claim.Owned.Contains(0) {
				t.Errorf("CPU 0 is not free: %+v", claim)
			}
		}, []string{"b"}},
		"a refusal": {func(t *testing.T, l *Ledger, _ string) {
			if _, err := l.Reserve(t.Context(), bundle(l, "b"), refuse); !errors.Is(err, numa.ErrRefused) {
				t.Error(err)
			}
		}, nil},
		"an error": {func(t *testing.T, l *Ledger, _ string) {
			if _, _, err := l.Confirm(t.Context(), bundle(l, "b"), Process{}); !errors.Is(err, ErrNoEntry) {
				t.Error(err)
			}
		}, nil},
		"its successor": {func(t *testing.T, l *Ledger, owed string) {
			_, err := l.Reserve(t.Context(), owed, always(dedicated(3)))
			must(t, err)
			must(t, l.Settle(t.Context()))
		}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t)
			a := reserve(t, l, "a", dedicated(0))
			letGo := held(t, l)
			if err := l.Release(t.Context(), a); !errors.Is(err, ErrBusy) {
				t.Fatal(err)
			}
			if err := l.Settle(t.Context()); !errors.Is(err, ErrBusy) {
				t.Fatal(err)
			}
			if _, ids := read(t, l); !slices.Equal(ids, []string{"a"}) {
				t.Errorf("before, the ledger has %q", ids)
			}
			letGo()
			c.next(t, l, a)
			entries, ids := read(t, l)
			if !slices.Equal(ids, c.left) {
				t.Errorf("the ledger has %q, should have %q", ids, c.left)
			}
			if slices.Contains(ids, "a") && !entries[0].Owned.Contains(3) {
				t.Errorf("the successor's entry is %+v", entries[0])
			}
			// It is owed no longer: there is nothing to be written for it.
			before, err := os.ReadFile(l.config.Dir + "/" + stateFile)
			must(t, err)
			letGo = held(t, l)
			must(t, l.Settle(t.Context()))
			letGo()
			if after, err := os.ReadFile(l.config.Dir + "/" + stateFile); err != nil || string(after) != string(before) {
				t.Errorf("%v: written once more", err)
			}
		})
	}
}

// TestOwedClaim cannot replace a container's claim at first: the last one counts.
func TestOwedClaim(t *testing.T) {
	for name, c := range map[string]struct {
		then func(l *Ledger, bundle string) error
		want []string // what is owned
	}{
		"nothing": {func(*Ledger, string) error { return ErrBusy }, []string{"0-1"}},
		"another": {func(l *Ledger, b string) error { return l.Replace(t.Context(), b, dedicated(1)) }, []string{"1"}},
		"release": {func(l *Ledger, b string) error { return l.Release(t.Context(), b) }, nil},
	} {
		l := open(t)
		a := reserve(t, l, "a", dedicated(0, 1, 2))
		init, err := ProcessOf(os.Getpid())
		must(t, err)
		_, _, err = l.Confirm(t.Context(), a, init)
		must(t, err)
		letGo := held(t, l)
		for _, err := range []error{l.Replace(t.Context(), a, dedicated(0, 1)), c.then(l, a)} {
			if !errors.Is(err, ErrBusy) {
				t.Errorf("%s: %v", name, err)
			}
		}
		letGo()
		for range 2 {
			must(t, l.Settle(t.Context()))
			entries, _ := read(t, l)
			var owned []string
			for _, e := range entries {
				owned = append(owned, e.Owned.String())
				if e.Init != init {
					t.Errorf("%s: init is %+v, was %+v", name, e.Init, init)
				}
			}
			if !slices.Equal(owned, c.want) {
				t.Errorf("%s: owned %q, want %q", name, owned, c.want)
			}
		}
	}
	l := open(t)
	negative := sharedOn(0)
	negative.Milli = -1
	if err := l.Replace(t.Context(), bundle(l, "a"), negative); err == nil || !l.owed.isEmpty() {
		t.Errorf("a claim that cannot be written: %v; something is owed: %t", err, !l.owed.isEmpty())
	}
	must(t, l.Replace(t.Context(), bundle(l, "a"), sharedOn(0)))
	if _, ids := read(t, l); !slices.Equal(ids, []string{"a"}) {
		t.Errorf("the ledger has %q", ids)
	}
}

// TestOwedOfALaterContainer has another shim enter a bundle again before this
// one could enter what it owes of it: that is no longer this one's to change.
func TestOwedOfALaterContainer(t *testing.T) {
	for name, owe := range map[string]func(l *Ledger, bundle string) error{
		"release": func(l *Ledger, b string) error { return l.Release(t.Context(), b) },
		"claim":   func(l *Ledger, b string) error { return l.Replace(t.Context(), b, dedicated(1)) },
	} {
		l := open(t)
		other, err := Open(l.config)
		must(t, err)
		other.self = Process{Pid: os.Getppid(), Start: l.self.Start, Namespace: l.self.Namespace}
		a := reserve(t, l, "a", dedicated(0))
		letGo := held(t, l)
		if err := owe(l, a); !errors.Is(err, ErrBusy) {
			t.Errorf("%s: %v", name, err)
		}
		letGo()
		must(t, other.Release(t.Context(), a)) // as the delete command does
		_, err = other.Reserve(t.Context(), a, always(dedicated(3)))
		must(t, err)
		must(t, l.Settle(t.Context()))
		entries, _ := read(t, l)
		if len(entries) != 1 || entries[0].Owner != other.self || entries[0].Owned.String() != "3" {
			t.Errorf("%s: the ledger has %+v", name, entries)
		}
		if !l.owed.isEmpty() {
			t.Errorf("%s: it is owed for ever", name)
		}
	}
}

// TestOwedWakes has a release that comes late tell those who share CPUs.
func TestOwedWakes(t *testing.T) {
	l := open(t)
	changed := 0
	l.config.Changed = func() { changed++ }
	reserve(t, l, "shared", sharedOn(0))
	own := reserve(t, l, "own", dedicated(0))
	letGo := held(t, l)
	if err := l.Release(t.Context(), own); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	letGo()
	changed = 0
	must(t, l.Settle(t.Context()))
	if changed != 1 {
		t.Errorf("told %d times", changed)
	}
}

// TestOwedIsCountedOnce cannot write at first.
func TestOwedIsCountedOnce(t *testing.T) {
	l, a := becomeReadOnly(t, dedicated(0))
	l.Count(FailedOpen)
	l.Count(FailedOpen)
	if err := l.Release(t.Context(), a); !errors.Is(err, unix.EROFS) {
		t.Errorf("%v", err)
	}
	must(t, unix.Mount("", l.config.Dir, "", unix.MS_REMOUNT, "mode=700"))
	for range 2 {
		must(t, l.Settle(t.Context()))
		counters, err := l.Counters()
		must(t, err)
		if _, ids := read(t, l); counters != (Counters{Placed: 1, FailedOpen: 2}) || len(ids) > 0 {
			t.Errorf("counted %v, left %q", counters, ids)
		}
	}
}
