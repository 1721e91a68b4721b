package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// BenchmarkReserveRelease enters and drops a container beside others, and in
// turn with that rewrites a file of the ledger's size twice under flock, as
// the least that it could cost. Where TMPDIR is matters: the ledger's place is
// a tmpfs, such as /dev/shm.
func BenchmarkReserveRelease(b *testing.B) {
	for _, others := range []int{0, 100, 1000} {
		b.Run(fmt.Sprint(others, "-containers"), func(b *testing.B) {
			l := open(b)
			text := fill(b, l, others)
			raw := filepath.Join(b.TempDir(), "raw")
			must(b, os.Mkdir(raw, 0o700))
			must(b, os.WriteFile(filepath.Join(raw, stateFile), text, 0o600))
			var ours, theirs []time.Duration
			for b.Loop() {
				begun := time.Now()
				_, err := l.Reserve(b.Context(), bundle(l, "one"), always(dedicated(3)))
				must(b, err)
				must(b, l.Release(b.Context(), bundle(l, "one")))
				ours = append(ours, time.Since(begun))
				begun = time.Now()
				rewrite(b, raw)
				rewrite(b, raw)
				theirs = append(theirs, time.Since(begun))
			}
			b.ReportMetric(float64(len(text)), "file-bytes")
			b.ReportMetric(percentile(ours, 50), "ledger-p50-ms")
			b.ReportMetric(percentile(ours, 99), "ledger-p99-ms")
			b.ReportMetric(percentile(theirs, 50), "raw-p50-ms")
			b.ReportMetric(percentile(theirs, 99), "raw-p99-ms")
		})
	}
}

// fill enters containers of living processes, whom nobody needs to wake, and
// returns the file.
func fill(b *testing.B, l *Ledger, containers int) []byte {
	s := &state{boot: l.boot, topology: l.topology.Load().Hash}
	for i := range containers {
		c := sharedOn(1)
		c.Pod = fmt.Sprintf("7b1a4c52-9d4e-4c3c-8a41-%012d", i)
		if i%4 == 0 {
			c.Owned = cpuset.Of(16 + i)
		}
		s.put(Entry{
			Bundle: fmt.Sprintf("%s/k8s.io/%064x", l.config.Roots[0], i), Claim: c, Owner: l.self, Init: l.self,
		})
	}
	text, err := s.encode()
	must(b, err)
	must(b, os.WriteFile(filepath.Join(l.config.Dir, stateFile), text, 0o600))
	return text
}

// rewrite replaces a file by a copy under the lock of its directory.
func rewrite(b *testing.B, dir string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(b, err)
	defer unix.Close(fd)
	must(b, unix.Flock(fd, unix.LOCK_EX))
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	must(b, err)
	temp := filepath.Join(dir, stateFile+tempSuffix)
	must(b, os.WriteFile(temp, text, 0o600))
	must(b, os.Rename(temp, filepath.Join(dir, stateFile)))
}

// percentile is one in milliseconds.
func percentile(times []time.Duration, percent int) float64 {
	slices.Sort(times)
	return times[(len(times)-1)*percent/100].Seconds() * 1000
}

// BenchmarkHold measures for how long the lock is held.
func BenchmarkHold(b *testing.B) {
	l := open(b)
	fill(b, l, 1000)
	var begun time.Time
	var held []time.Duration
	l.step = func(where string) {
		switch where {
		case "locked":
			begun = time.Now()
		case "renamed " + stateFile + tempSuffix:
			held = append(held, time.Since(begun))
		}
	}
	for b.Loop() {
		_, err := l.Reserve(b.Context(), bundle(l, "one"), always(sharedOn(0)))
		must(b, err)
	}
	b.ReportMetric(percentile(held, 50), "p50-ms")
	b.ReportMetric(percentile(held, 99), "p99-ms")
}

// BenchmarkSweep looks for the dead among a thousand containers whose shims and
// inits all differ.
func BenchmarkSweep(b *testing.B) {
	l := open(b)
	entries := make([]Entry, 1000)
	for i := range entries {
		entries[i] = Entry{Owner: l.self, Claim: numa.Claim{}}
		entries[i].Owner.Start -= uint64(i + 1) // all dead, so that init is looked at
		entries[i].Init = entries[i].Owner
		entries[i].Init.Start++
	}
	for b.Loop() {
		l.dead(entries)
	}
}
