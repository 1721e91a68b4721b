package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

func TestLife(t *testing.T) {
	l := open(t)
	a := reserve(t, l, "a", sharedOn(0))
	init := start(t, "thread")
	init.line(t)
	p, err := ProcessOf(init.Process.Pid)
	must(t, err)

	var seen []numa.Claim
	b := bundle(l, "b with blanks\n%-\xff")
	claim := dedicated(8, 9)
	claim.Pod, claim.Idle, claim.Bytes = "-", cpuset.Of(10), 1<<40
	_, err = l.Reserve(t.Context(), b, func(others []numa.Claim, _ numa.Demand) (numa.Claim, error) {
		seen = others
		return claim, nil
	})
	must(t, err)
	if len(seen) != 1 || seen[0].Milli != sharedOn(0).Milli || !seen[0].Nodes.Equal(cpuset.Of(0)) {
		t.Errorf("decided upon %+v", seen)
	}

	own, others, err := l.Confirm(t.Context(), a, p)
	must(t, err)
	if !own.Nodes.Equal(cpuset.Of(0)) || len(others) != 1 || !others[0].Owned.Equal(cpuset.Of(8, 9)) {
		t.Errorf("confirmed %+v beside %+v", own, others)
	}
	entries, _ := read(t, l)
	want := []Entry{
		{Bundle: a, Claim: sharedOn(0), Owner: l.self, Init: p},
		{Bundle: b, Claim: claim, Owner: l.self},
	}
	if !sameEntries(entries, want) {
		t.Errorf("read %+v, want %+v", entries, want)
	}

	// A change keeps init and does not meet itself.
	_, err = l.Reserve(t.Context(), a, func(others []numa.Claim, _ numa.Demand) (numa.Claim, error) {
		seen = others
		return sharedOn(1), nil
	})
	must(t, err)
	if len(seen) != 1 || seen[0].Pod != "-" {
		t.Errorf("changed upon %+v", seen)
	}
	if entries, _ := read(t, l); entries[0].Init != p || !entries[0].Nodes.Equal(cpuset.Of(1)) {
		t.Errorf("changed to %+v", entries[0])
	}
	must(t, l.Release(t.Context(), a))
	before, err := os.Stat(filepath.Join(l.config.Dir, stateFile))
	must(t, err)
	must(t, l.Release(t.Context(), a))
	after, err := os.Stat(filepath.Join(l.config.Dir, stateFile))
	must(t, err)
	if !os.SameFile(before, after) {
		t.Error("written without a change")
	}
	if _, ids := read(t, l); !slices.Equal(ids, []string{filepath.Base(b)}) {
		t.Errorf("after the release: %q", ids)
	}
	if _, _, err := l.Confirm(t.Context(), a, p); !errors.Is(err, ErrNoEntry) || !strings.Contains(err.Error(), a) {
		t.Errorf("confirmed what is not there: %v", err)
	}
	sound(t, l)
}

func TestRefusals(t *testing.T) {
	l := open(t)
	kept := reserve(t, l, "kept", sharedOn(0))
	before, _ := read(t, l)
	fds := openFDs(t)
	odd := errors.New("odd")
	tooLong := sharedOn(0)
	tooLong.Pod = strings.Repeat("x", maxPod+1)
	negative := sharedOn(0)
	negative.Milli = -1
	for name, c := range map[string]struct {
		bundle string
		decide Decide
		want   error
	}{
		"relative":      {"bundles/ns/a", always(sharedOn(0)), nil},
		"not clean":     {"/bundles/ns/../a", always(sharedOn(0)), nil},
		"empty":         {"", always(sharedOn(0)), nil},
		"NUL":           {"/bundles/ns/a\x00", always(sharedOn(0)), nil},
		"long":          {"/" + strings.Repeat("x", maxPath), always(sharedOn(0)), nil},
		"long pod":      {bundle(l, "a"), always(tooLong), nil},
		"negative":      {bundle(l, "a"), always(negative), nil},
		"error":         {bundle(l, "a"), func([]numa.Claim, numa.Demand) (numa.Claim, error) { return numa.Claim{}, odd }, odd},
		"refused":       {bundle(l, "a"), refuse, numa.ErrRefused},
		"change denied": {kept, refuse, numa.ErrRefused},
	} {
		claim, err := l.Reserve(t.Context(), c.bundle, c.decide)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !claim.Nodes.IsEmpty() {
			t.Errorf("%s: %+v, %v", name, claim, err)
		}
	}
	if after, _ := read(t, l); !sameEntries(before, after) {
		t.Errorf("refusals changed %+v to %+v", before, after)
	}
	if now := openFDs(t); now != fds {
		t.Errorf("%d descriptors, were %d", now, fds)
	}
	counters, err := l.Counters()
	must(t, err)
	if counters != (Counters{Placed: 1, Refused: 2}) {
		t.Errorf("counted %v", counters)
	}
}

func refuse([]numa.Claim, numa.Demand) (numa.Claim, error) {
	return numa.Claim{}, fmt.Errorf("no room: %w", numa.ErrRefused)
}

func TestCountersAndDemand(t *testing.T) {
	l := open(t)
	spilled := sharedOn(0)
	spilled.Nodes, spilled.Milli = cpuset.Of(0, 1), 9000
	sandbox := sharedOn(1)
	sandbox.Pod, sandbox.Sandbox = "pod", true
	inPod := sharedOn(1)
	inPod.Pod = "pod"
	claims := []numa.Claim{sharedOn(0), spilled, {}, sandbox, inPod}
	var want numa.Demand
	for i, c := range claims {
		for range 2 { // the second is a change, which does not count
			reserve(t, l, fmt.Sprint(i), c)
		}
		if i != 2 && i != 4 {
			want = want.Add(c)
		}
	}
	write(t, l)
	counters, err := l.Counters()
	must(t, err)
	if counters != (Counters{Placed: 3, Spilled: 1, Unplaced: 1, FailedOpen: 1}) {
		t.Errorf("counted %v", counters)
	}
	if read, err := ReadCounters(l.config.Dir); err != nil || read != counters {
		t.Errorf("somebody else reads %v, %v", read, err)
	}
	if _, err := ReadCounters(l.config.Dir + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("where there is no ledger: %v", err)
	}
	demand, err := l.Demand()
	must(t, err)
	if demand != want {
		t.Errorf("demand %v, want %v", demand, want)
	}
}

func TestFull(t *testing.T) {
	l := open(t)
	reserve(t, l, "a", sharedOn(0))
	rows := make([]row, maxRows+1)
	for i := range rows {
		rows[i].Entry = Entry{Bundle: fmt.Sprintf("/b/%06d", i), Owner: l.self}
	}
	s := state{rows: rows}
	if _, err := s.encode(); !errors.Is(err, ErrFull) {
		t.Errorf("too many rows: %v", err)
	}
	text, err := (&state{boot: l.boot, topology: "x", rows: rows[:maxRows]}).encode()
	must(t, err)
	if _, err := parse(text); err != nil {
		t.Errorf("the most rows: %v", err)
	}
	long := strings.Repeat("x", maxPath-16)
	rows = rows[:maxSize/len(long)+1]
	for i := range rows {
		rows[i].Bundle = fmt.Sprintf("/%06d/%s", i, long)
	}
	if _, err := (&state{rows: rows}).encode(); !errors.Is(err, ErrFull) {
		t.Errorf("too many bytes: %v", err)
	}
}

func TestBusy(t *testing.T) {
	l := open(t)
	a := reserve(t, l, "a", sharedOn(0))
	holder := start(t, "hold", l.config.Dir)
	if got := holder.line(t); got != "locked" {
		t.Fatal(got)
	}
	must(t, holder.Process.Signal(unix.SIGSTOP))
	if _, err := l.Reserve(t.Context(), bundle(l, "b"), always(sharedOn(0))); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), l.config.Dir) {
		t.Errorf("reserve: %v", err)
	}
	if err := l.Release(t.Context(), a); !errors.Is(err, ErrBusy) {
		t.Errorf("release: %v", err)
	}
	if _, ids := read(t, l); !slices.Equal(ids, []string{"a"}) {
		t.Errorf("readers see %q", ids)
	}
	// A caller whose request is given up does not wait out its patience.
	l.config.Patience = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := l.Reserve(ctx, bundle(l, "b"), always(sharedOn(0))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// The kernel takes the lock from the dead.
	must(t, holder.Process.Kill())
	must(t, l.Release(t.Context(), a))
	sound(t, l)
}

// TestPatience has somebody wait for a lock whose holders write, or do not.
func TestPatience(t *testing.T) {
	const patience, tick = 250 * time.Millisecond, 10 * time.Millisecond
	for _, c := range []struct {
		write, want time.Duration // a write every so often, if not zero
	}{{0, patience}, {patience - tick, progressFactor * patience}, {patience + tick, patience}} {
		now := time.Now()
		w := waiting{patience: patience, begun: now, last: now}
		waited := time.Duration(0)
		for v := (version{}); !w.enough(now.Add(waited), v); waited += tick {
			if c.write > 0 && (waited+tick)%c.write == 0 {
				v.inode++
			}
		}
		if waited != c.want {
			t.Errorf("a write every %v: gave up after %v, not %v", c.write, waited, c.want)
		}
	}
}

// TestLockIsNotInherited has a child and a copy of the descriptor, which is
// what a child has between fork and exec, outlive the holding of the lock.
func TestLockIsNotInherited(t *testing.T) {
	l := open(t)
	var copied int
	var listing []byte
	_, err := l.Reserve(t.Context(), bundle(l, "a"), func([]numa.Claim, numa.Demand) (numa.Claim, error) {
		var err error
		if listing, err = exec.Command("ls", "-l", "/proc/self/fd").Output(); err != nil {
			t.Error(err)
		}
		copied = copyOf(t, l.config.Dir)
		return sharedOn(0), nil
	})
	must(t, err)
	defer unix.Close(copied)
	if strings.Contains(string(listing), l.config.Dir) {
		t.Errorf("a child has the ledger:\n%s", listing)
	}
	must(t, l.Release(t.Context(), bundle(l, "a")))
}

// copyOf duplicates this process's descriptor of a directory.
func copyOf(t *testing.T, dir string) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range fds {
		var n int
		if target, _ := os.Readlink("/proc/self/fd/" + fd.Name()); target != dir {
			continue
		}
		if _, err := fmt.Sscan(fd.Name(), &n); err != nil {
			t.Fatal(err)
		}
		copied, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		return copied
	}
	t.Fatalf("%s is not open", dir)
	return -1
}

func TestGoroutines(t *testing.T) {
	const goroutines, claims = 16, 20
	l := open(t)
	l.config.Patience = time.Minute
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range claims {
				b := bundle(l, fmt.Sprintf("%d-%d", g, i))
				if _, err := l.Reserve(t.Context(), b, oneFree); err != nil && !errors.Is(err, numa.ErrRefused) {
					t.Error(err)
				}
				if err := l.Release(t.Context(), b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, ids := read(t, l); len(ids) != 0 {
		t.Errorf("left: %q", ids)
	}
	sound(t, l)
}

// TestReaders reads while another writes, and wants every state whole. The
// bundles are empty: a state that was rebuilt would show.
func TestReaders(t *testing.T) {
	const changes = 200
	l := open(t)
	kept := bundle(l, "kept")
	_, err := l.Reserve(t.Context(), kept, always(sharedOn(0)))
	must(t, err)
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for range changes {
			if _, err := l.Reserve(t.Context(), bundle(l, "other"), always(sharedOn(0))); err != nil {
				t.Error(err)
			}
			if err := l.Release(t.Context(), bundle(l, "other")); err != nil {
				t.Error(err)
			}
		}
	})
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		entries, err := l.Read()
		if err != nil || len(entries) == 0 || entries[0].Bundle != kept {
			t.Errorf("read %+v, %v", entries, err)
			break
		}
	}
	wg.Wait()
}

// oneFree takes the first CPU that is free.
func oneFree(others []numa.Claim, _ numa.Demand) (numa.Claim, error) {
	var taken cpuset.Set
	for _, c := range others {
		if c.Owned.Intersects(taken) {
			return numa.Claim{}, fmt.Errorf("CPUs %v are owned twice", c.Owned.Intersect(taken))
		}
		taken = taken.Union(c.Owned)
	}
	free := machine().Online.Difference(taken)
	if free.IsEmpty() {
		return numa.Claim{}, numa.ErrRefused
	}
	return dedicated(free.Min()), nil
}
