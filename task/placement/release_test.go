package placement

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa/ledger"
)

// hold has another hold the ledger's lock until it is told to let go.
func (s Settings) hold(t *testing.T) (letGo func()) {
	t.Helper()
	f, err := os.Open(s.Ledger)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	return func() { must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN)) }
}

// bundles are those of a ledger's entries.
func bundles(t *testing.T, l *ledger.Ledger) (all []string) {
	t.Helper()
	entries, err := l.Read()
	must(t, err)
	for _, e := range entries {
		all = append(all, e.Bundle)
	}
	return all
}

// TestReleaseIsOwed has the ledger be locked when a container goes. Its shim
// makes up for that, or the delete command does.
func TestReleaseIsOwed(t *testing.T) {
	for name, later := range map[string]func(p *Placed) error{
		"shim": func(p *Placed) error {
			if p.placer.Settle(t.Context()) {
				return errors.New("something is left")
			}
			return nil
		},
		"delete command": func(p *Placed) error { return Release(t.Context(), p.bundle) },
	} {
		s := small(t)
		nudged := 0
		spec := parse(t, onNode0)
		p, err := New(s, func() { nudged++ }).Place(t.Context(), Container{ID: "c", Bundle: t.TempDir(), Spec: spec, Settings: s})
		must(t, err)
		if p.placer.Settle(t.Context()) {
			t.Errorf("%s: something is left before", name)
		}
		letGo := s.hold(t)
		p.Release(t.Context())
		if left := bundles(t, p.ledger); len(left) != 1 || nudged == 0 || !p.placer.Settle(t.Context()) {
			t.Errorf("%s: the ledger has %q, nudged %d times", name, left, nudged)
		}
		letGo()
		must(t, later(p))
		if left := bundles(t, p.ledger); len(left) > 0 {
			t.Errorf("%s: the ledger still has %q", name, left)
		}
	}
}

// TestLetsGoLater takes a CPU from a container, and then cannot tell: that CPU is
// free some time after the ledger is.
func TestLetsGoLater(t *testing.T) {
	s := small(t)
	s.CPUPolicy = "dedicated"
	p, _ := place(t, s, `{"linux":{"resources":{"cpu":{"cpus":"0-1","quota":200000,"period":100000}}}}`)
	var letGo func()
	quota := int64(100000)
	must(t, p.Update(t.Context(), &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota}}, func(context.Context, *specs.LinuxResources) error {
		letGo = s.hold(t)
		return nil
	}))
	owned := func() int {
		entries, err := p.ledger.Read()
		must(t, err)
		return entries[0].Owned.Len()
	}
	if p.cpus.Len() != 1 || owned() != 2 {
		t.Errorf("has CPUs %s, owns %d", p.cpus, owned())
	}
	letGo()
	if p.placer.Settle(t.Context()) || owned() != 1 {
		t.Errorf("still owns %d", owned())
	}
}

// TestReleasedWhileChanging has a container go while an update of it hangs,
// which enters it in the ledger again when it fails.
func TestReleasedWhileChanging(t *testing.T) {
	s := small(t)
	s.MemoryPolicy, s.WidenMemory = "bind", true
	p, _ := place(t, s, onNode0)
	nothing := func(context.Context, *specs.LinuxResources) error { return nil }
	p.Confirm(t.Context(), os.Getpid(), nil, nothing)
	hangs, failed := make(chan struct{}), make(chan error)
	applying := make(chan struct{})
	go func() {
		shares := uint64(200)
		failed <- p.Update(context.Background(), &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares}},
			func(context.Context, *specs.LinuxResources) error {
				close(applying)
				<-hangs
				return errors.New("no such cgroup")
			})
	}()
	<-applying
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	p.Release(ctx)
	close(hangs)
	if err := <-failed; err == nil {
		t.Error("no error of the update")
	}
	if left := bundles(t, p.ledger); len(left) > 0 || p.unwatch != nil {
		t.Errorf("the ledger has %q; its memory is watched: %t", left, p.unwatch != nil)
	}
	if _, err := ledger.ReadRecord(p.bundle); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("record: %v", err)
	}
	// A container that has its bundle now is not released with it.
	next, err := p.placer.Place(t.Context(), Container{ID: "c", Bundle: p.bundle, Spec: parse(t, onNode0), Settings: s})
	must(t, err)
	p.Reapply(t.Context(), nothing)
	if left := bundles(t, p.ledger); len(left) != 1 {
		t.Errorf("the ledger has %q", left)
	}
	next.Release(t.Context())
}

// TestToldWhyUnplaced runs a container without a place: its bundle says why,
// and the ledger counts it.
func TestToldWhyUnplaced(t *testing.T) {
	for name, spoil := range map[string]struct {
		do   func(t *testing.T, s *Settings)
		spec string
		want uint64
	}{
		"locked":     {func(t *testing.T, s *Settings) { must(t, os.Mkdir(s.Ledger, 0o700)) }, onNode0, 1},
		"no machine": {func(t *testing.T, s *Settings) { s.Sysfs = t.TempDir() }, onNode0, 0},
		"no CPUs":    {func(*testing.T, *Settings) {}, `{"linux":{"resources":{"cpu":{"cpus":"7"}}}}`, 1},
	} {
		s := small(t)
		spoil.do(t, &s)
		letGo := func() {}
		if name == "locked" {
			letGo = s.hold(t)
		}
		placer, bundle := New(s, nil), t.TempDir()
		p, err := placer.Place(t.Context(), Container{ID: "c", Bundle: bundle, Spec: parse(t, spoil.spec), Settings: s})
		if p != nil || err != nil {
			t.Fatalf("%s: %v, %v", name, p, err)
		}
		if r := noted(t, &Placed{bundle: bundle}); r.Fault == "" || r.Claim != nil || r.Asked.Policy != "best-effort" {
			t.Errorf("%s: noted %+v", name, r)
		}
		letGo()
		placer.Settle(t.Context())
		if l := placer.opened(t.Context()); l != nil {
			counters, err := l.Counters()
			must(t, err)
			if counters[ledger.FailedOpen] != spoil.want {
				t.Errorf("%s: counted %v", name, counters)
			}
		} else if spoil.want > 0 {
			t.Errorf("%s: no ledger", name)
		}
		must(t, Release(t.Context(), bundle))
	}
}
