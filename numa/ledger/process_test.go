package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// eventually waits for a condition; a test is not to fail for being slow.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestWhoIsDead(t *testing.T) {
	l := open(t)
	c := start(t, "thread")
	c.line(t)
	p, err := ProcessOf(c.Process.Pid)
	must(t, err)
	eventually(t, "its first thread ends", func() bool {
		s, err := readStat(p.Pid)
		return err == nil && s.state == 'Z'
	})
	if l.isDead(p) {
		t.Error("a process whose first thread has ended is taken for dead")
	}
	later := p
	later.Start++
	foreign := later
	foreign.Namespace++
	if !l.isDead(later) {
		t.Error("a later process with its pid is taken for it")
	}
	if l.isDead(foreign) {
		t.Error("a process of another namespace is taken for dead")
	}
	must(t, c.Process.Kill())
	eventually(t, "a zombie is dead", func() bool { return l.isDead(p) })
	if _, err := os.Stat("/proc/" + strconv.Itoa(p.Pid)); err != nil {
		t.Errorf("it should be a zombie still: %v", err)
	}
	c.Wait()
	if !l.isDead(p) {
		t.Error("a reaped process is taken for living")
	}
	if l.isDead(l.self) {
		t.Error("I am dead")
	}
	if _, err := ProcessOf(p.Pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead described: %v", err)
	}
}

func TestParseStat(t *testing.T) {
	const tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 4 0 4711 23"
	for text, want := range map[string]stat{
		"1 (a)" + tail:             {'S', 4, 4711},
		"1 (a b) R 1 (c)" + tail:   {'S', 4, 4711},
		"1 (\n)" + tail + "\n":     {'S', 4, 4711},
		"":                         {},
		"1 a" + tail:               {},
		"1 (a) S 1 2 3":            {},
		"1 (a) SS 1 2 3" + tail:    {},
		"1 (a) S" + tail[2:] + "x": {'S', 4, 4711},
	} {
		got, err := parseStat([]byte(text))
		if got != want || (err == nil) != (want != stat{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, s := range []struct {
		stat
		dead bool
	}{{stat{'Z', 1, 0}, true}, {stat{'Z', 0, 0}, true}, {stat{'X', 2, 0}, true}, {stat{'Z', 2, 0}, false}, {stat{'T', 1, 0}, false}} {
		if s.stat.dead() != s.dead {
			t.Errorf("%+v: dead is %t", s.stat, s.stat.dead())
		}
	}
}

// TestTheDeadMakeRoom fills the machine with claims of the dead.
func TestTheDeadMakeRoom(t *testing.T) {
	l := open(t)
	gone := as(t, l, deadProcess(t))
	living := start(t, "thread")
	living.line(t)
	init, err := ProcessOf(living.Process.Pid)
	must(t, err)
	for cpu := range 16 {
		b := reserve(t, gone, strconv.Itoa(cpu), dedicated(cpu))
		if cpu == 3 { // its shim is dead, the container lives
			_, _, err := l.Confirm(t.Context(), b, init)
			must(t, err)
		}
	}
	b := bundle(l, "b")
	claim, err := l.Reserve(t.Context(), b, oneFree)
	must(t, err)
	if !claim.Owned.Equal(cpuset.Of(0)) {
		t.Errorf("got %v", claim.Owned)
	}
	if _, ids := read(t, l); !slices.Equal(ids, []string{"3", "b"}) {
		t.Errorf("left %q", ids)
	}
	// Something that needs two nodes looks for the dead as well.
	reserve(t, gone, "x", dedicated(9))
	_, err = l.Reserve(t.Context(), bundle(l, "c"), func(others []numa.Claim, _ numa.Demand) (numa.Claim, error) {
		c := sharedOn(0)
		if len(others) > 2 {
			c.Nodes = cpuset.Of(0, 1)
		}
		return c, nil
	})
	must(t, err)
	if entries, ids := read(t, l); !slices.Equal(ids, []string{"3", "b", "c"}) || entries[2].Nodes.Len() != 1 {
		t.Errorf("left %q, %+v", ids, entries)
	}
}

// TestTheDeadFillTheLedger has no room for the claims of the living.
func TestTheDeadFillTheLedger(t *testing.T) {
	l := open(t)
	s, dead := &state{boot: l.boot, topology: "x"}, deadProcess(t)
	for i := range maxRows {
		s.rows = append(s.rows, row{Entry: Entry{Bundle: fmt.Sprintf("/b/%06d", i), Owner: dead}})
	}
	text, err := s.encode()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(l.config.Dir, stateFile), text, 0o600))
	reserve(t, l, "a", sharedOn(0))
	if _, ids := read(t, l); !slices.Equal(ids, []string{"a"}) {
		t.Errorf("%d are left", len(ids))
	}
}

// TestSameIDAgain has a container take the place of one whose shim died.
func TestSameIDAgain(t *testing.T) {
	l := open(t)
	gone := as(t, l, deadProcess(t))
	b := reserve(t, gone, "a", dedicated(1))
	_, _, err := l.Confirm(t.Context(), b, deadProcess(t))
	must(t, err)
	reserve(t, l, "a", dedicated(2))
	entries, _ := read(t, l)
	if want := []Entry{{Bundle: b, Claim: dedicated(2), Owner: l.self}}; !sameEntries(entries, want) {
		t.Errorf("%+v, want %+v", entries, want)
	}
	counters, err := l.Counters()
	must(t, err)
	if counters[Placed] != 2 {
		t.Errorf("counted %v", counters)
	}
}

// TestSweepEverySoOften has the dead in nobody's way.
func TestSweepEverySoOften(t *testing.T) {
	l := open(t)
	gone := as(t, l, deadProcess(t))
	// However many changes a container's life is, and wherever the first of
	// them is counted from.
	for _, dead := range []int{1, 2} {
		for _, releases := range []int{0, 1, 2} {
			for n := range dead {
				reserve(t, gone, fmt.Sprint("dead", n), sharedOn(0))
			}
			for range sweepEvery {
				_, err := l.Reserve(t.Context(), bundle(l, "a"), always(sharedOn(0)))
				must(t, err)
				for range releases {
					must(t, l.change(t.Context(), func(s *state) (bool, error) { s.drop(bundle(l, "a")); return true, nil }))
				}
			}
			must(t, l.Release(t.Context(), bundle(l, "a")))
			if _, ids := read(t, l); len(ids) > 0 {
				t.Errorf("%d dead, %d other changes: left %q", dead, releases, ids)
			}
		}
	}
}

// TestWake has the CPUs of shared containers of three shims change.
func TestWake(t *testing.T) {
	l := open(t)
	changed := 0
	l.config.Changed = func() { changed++ }
	near := start(t, "shim", l.config.Dir, l.config.Roots[0], bundle(l, "near"), "0")
	stale := start(t, "shim", l.config.Dir, l.config.Roots[0], bundle(l, "stale"), "0")
	for _, c := range []*child{near, stale} {
		if got := c.line(t); got != "reserved" {
			t.Fatal(got)
		}
	}
	// Like a process that has got the pid of a shim since.
	must(t, stale.Process.Signal(unix.SIGSTOP))
	entries, ids := read(t, l)
	earlier := entries[slices.Index(ids, "stale")].Owner
	earlier.Start--
	l.wake(earlier)
	status, err := os.ReadFile("/proc/" + strconv.Itoa(stale.Process.Pid) + "/status")
	must(t, err)
	if pending(t, string(status)) {
		t.Error("another process than the shim is signalled")
	}

	woken := func() {
		t.Helper()
		if got := near.line(t); got != "woken" {
			t.Fatal(got)
		}
	}
	reserve(t, l, "d", dedicated(8))
	if changed != 0 {
		t.Error("woken by another node's CPUs")
	}
	reserve(t, l, "own", sharedOn(0))
	reserve(t, l, "e", dedicated(0, 1))
	woken()
	if changed != 1 {
		t.Errorf("told %d times", changed)
	}
	reserve(t, l, "e", dedicated(0, 1)) // nothing changes
	if changed != 1 {
		t.Errorf("told %d times, without a change", changed)
	}
	reserve(t, l, "e", dedicated(0, 2))
	woken()
	must(t, l.Release(t.Context(), bundle(l, "e")))
	woken()
	if changed != 3 {
		t.Errorf("told %d times", changed)
	}
}

// pending tells from /proc/pid/status whether the wake signal waits.
func pending(t *testing.T, status string) bool {
	t.Helper()
	const key = "\nShdPnd:\t"
	if _, rest, ok := strings.Cut(status, key); ok {
		digits, _, _ := strings.Cut(rest, "\n")
		mask, err := strconv.ParseUint(digits, 16, 64)
		must(t, err)
		return mask&(1<<(WakeSignal-1)) != 0
	}
	t.Fatalf("no ShdPnd in %s", status)
	return false
}

func TestWhoIsAffected(t *testing.T) {
	owner := func(pid int) Process { return Process{Pid: pid} }
	narrow := sharedOn(0)
	narrow.Granted = cpuset.Range(4, 15)
	both := sharedOn(0)
	both.Nodes = cpuset.Of(0, 1)
	rows := []row{
		{Entry: Entry{Bundle: "/1", Owner: owner(1), Claim: sharedOn(0)}},
		{Entry: Entry{Bundle: "/2", Owner: owner(1), Claim: sharedOn(0)}},
		{Entry: Entry{Bundle: "/3", Owner: owner(2), Claim: sharedOn(1)}},
		{Entry: Entry{Bundle: "/4", Owner: owner(3), Claim: narrow}},
		{Entry: Entry{Bundle: "/5", Owner: owner(4), Claim: both}},
		{Entry: Entry{Bundle: "/6", Owner: owner(5), Claim: dedicated(1)}},
		{Entry: Entry{Bundle: "/7", Owner: owner(6), Claim: numa.Claim{Granted: cpuset.Range(0, 15)}}},
	}
	for _, c := range []struct {
		given, taken string
		pids         []int
	}{
		{"", "", nil},
		{"0-15", "0-15", nil},
		{"0", "", []int{1, 4}},
		{"", "4", []int{1, 3, 4}},
		{"", "8", []int{2, 4}},
		{"0,8", "8,9", []int{1, 2, 4}},
		{"99", "", nil},
	} {
		s := state{rows: rows}
		var err error
		s.given, err = cpuset.Parse(c.given)
		must(t, err)
		s.taken, err = cpuset.Parse(c.taken)
		must(t, err)
		var pids []int
		for _, p := range s.affected(machine()) {
			pids = append(pids, p.Pid)
		}
		if !slices.Equal(pids, c.pids) {
			t.Errorf("%+v: affects %v", c, pids)
		}
	}
}
