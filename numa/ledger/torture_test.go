package ledger

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa"
)

var (
	processes = flag.Int("processes", 24, "processes of TestManyProcesses at once")
	claims    = flag.Int("claims", 20, "claims that each of them makes")
)

// TestManyProcesses has processes claim CPUs and release them, kills some of
// them at any moment, and wants no CPU to be owned twice and nothing left.
//
// What a CPU's owner is is also told by a witness that knows no ledger: a file
// for each CPU that its owner locks, which the kernel unlocks when it dies.
//
// The full run: go test ./numa/ledger -run ManyProcesses -processes 256 -claims 100
func TestManyProcesses(t *testing.T) {
	l := open(t)
	witness := t.TempDir()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var killed, busy int
	for range *processes {
		c := start(t, "claim", l.config.Dir, l.config.Roots[0], witness, strconv.Itoa(*claims))
		wg.Go(func() {
			for {
				var claim, waits int
				line, err := c.out.ReadString('\n')
				if err != nil {
					break // killed
				}
				if _, err := fmt.Sscanf(line, "claim %d busy %d\n", &claim, &waits); err != nil {
					t.Errorf("process %d: %s", c.Process.Pid, line)
				}
				mu.Lock()
				busy += waits
				mu.Unlock()
				// Wherever it is by the time the signal is there.
				if rand.N(*claims*2) == 0 {
					mu.Lock()
					killed++
					mu.Unlock()
					time.Sleep(rand.N(2 * time.Millisecond))
					c.Process.Kill()
				}
			}
			c.Wait() // so that it is no zombie, which counts as dead as well
		})
	}
	wg.Wait()
	if _, err := l.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if entries, _ := read(t, l); len(entries) != 0 {
		t.Errorf("%d entries are left: %+v", len(entries), entries)
	}
	// A write clears away what the killed left half written.
	write(t, l)
	sound(t, l)
	if _, err := os.Stat(filepath.Join(l.config.Dir, badFile)); err == nil {
		t.Error("a ledger was found defective")
	}
	t.Logf("%d processes, %d claims each; %d killed; %d times busy", *processes, *claims, killed, busy)
}

// claimRole claims CPUs in the ledger args[0] with the roots args[1] and the
// witness args[2], args[3] times.
func claimRole(args []string) error {
	l, err := Open(Config{Dir: args[0], Topology: machine(), Roots: args[1:2]})
	if err != nil {
		return err
	}
	times, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	for i := range times {
		busy, err := claimOnce(l, args[2], filepath.Join(l.config.Roots[0], "ns", fmt.Sprintf("%d-%d", os.Getpid(), i)))
		if err != nil {
			return err
		}
		fmt.Printf("claim %d busy %d\n", i, busy)
	}
	return nil
}

// claimOnce claims a CPU for a bundle and releases it, and tells how often the
// ledger was busy.
func claimOnce(l *Ledger, witness, bundle string) (busy int, err error) {
	patiently := func(call func() error) error {
		for {
			err := call()
			if !errors.Is(err, ErrBusy) {
				return err
			}
			busy++
		}
	}
	ctx := context.Background()
	var claim numa.Claim
	err = patiently(func() error {
		claim, err = l.Reserve(ctx, bundle, oneFree)
		return err
	})
	if errors.Is(err, numa.ErrRefused) {
		return busy, nil
	}
	if err != nil {
		return busy, err
	}
	cpu, err := unix.Open(filepath.Join(witness, claim.Owned.String()), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return busy, err
	}
	if err := unix.Flock(cpu, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return busy, fmt.Errorf("CPU %v is another's as well: %w", claim.Owned, err)
	}
	self, err := ProcessOf(os.Getpid())
	if err != nil {
		return busy, err
	}
	err = patiently(func() error {
		own, _, err := l.Confirm(ctx, bundle, self)
		if err == nil && !own.Owned.Equal(claim.Owned) {
			err = fmt.Errorf("confirmed %v, reserved %v", own.Owned, claim.Owned)
		}
		return err
	})
	if err != nil {
		return busy, err
	}
	unix.Close(cpu)
	return busy, patiently(func() error { return l.Release(ctx, bundle) })
}

// TestDeathAtEachStep kills a writer at each point at which that could leave
// something behind, and wants the next one to find the state before or after.
func TestDeathAtEachStep(t *testing.T) {
	const enough = 100
	for step := range enough {
		l := open(t)
		reserve(t, l, "a", dedicated(0))
		// One that has to be rebuilt on the way.
		must(t, os.WriteFile(filepath.Join(l.config.Dir, stateFile), []byte("garbage"), 0o600))
		other := filepath.Join(t.TempDir(), "other root", "ns", "b")
		c := start(t, "die", l.config.Dir, l.config.Roots[0], other, strconv.Itoa(step))
		where, err := c.out.ReadString('\n')
		c.Wait()
		if err != nil {
			t.Fatalf("step %d: the process said nothing: %v", step, err)
		}
		_, ids := read(t, l)
		if len(ids) < 1 || ids[0] != "a" || len(ids) > 2 {
			t.Errorf("after death when %q the ledger has %q", where, ids)
		}
		if dropped, err := l.Sweep(t.Context()); err != nil || dropped != len(ids)-1 {
			t.Errorf("after death when %q: %d dropped of %q, %v", where, dropped, ids, err)
		}
		write(t, l)
		// The roots are written again when a bundle of them comes again.
		_, err = l.Reserve(t.Context(), other, always(dedicated(1)))
		must(t, err)
		sound(t, l)
		if where == "done\n" {
			t.Logf("%d steps", step)
			return
		}
	}
	t.Errorf("more than %d steps", enough)
}

// dieRole reserves for the bundle args[2] in the ledger args[0] with the roots
// args[1] and kills itself at the step args[3], which it tells.
func dieRole(args []string) error {
	l, err := Open(Config{Dir: args[0], Topology: machine(), Roots: args[1:2]})
	if err != nil {
		return err
	}
	left, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	l.step = func(where string) {
		if left == 0 {
			fmt.Println(where)
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
		left--
	}
	if _, err := l.Reserve(context.Background(), args[2], always(dedicated(1))); err != nil {
		return err
	}
	fmt.Println("done")
	return nil
}
