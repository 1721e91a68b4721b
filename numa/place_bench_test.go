package numa_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa"
)

// crowd is a machine full of claims: a third of its CPUs dedicated, the others
// shared by so many containers, each with its pod's reservation.
func crowd(t testing.TB, topology *numa.Topology, claims int) numa.State {
	r := rand.New(rand.NewPCG(1, 1))
	var s numa.State
	enter := func(q numa.Request) {
		p, err := topology.Place(s, q)
		if err != nil {
			t.Fatal(err)
		}
		c := claimOf(q, p)
		s.Claims = append(s.Claims, c)
		s.Demand = s.Demand.Add(c)
	}
	for left := topology.Online.Len() / 3; left > 0; {
		width := 1 + r.IntN(min(left, 12))
		left -= width
		enter(numa.Request{CPU: numa.Dedicated, Width: width, Milli: 1000 * width, Granted: topology.Online})
	}
	for len(s.Claims)+1 < claims {
		pod := fmt.Sprintf("%032x", r.Uint64())
		q := numa.Request{Pod: pod, Milli: 1 + r.IntN(200), Bytes: 1 << 26, Granted: topology.Online}
		enter(q)
		s.Claims[len(s.Claims)-1].Sandbox = true
		enter(q)
	}
	return s
}

// cpuTime is the CPU time of this thread: what else runs is not in it.
func cpuTime(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// BenchmarkPlace decides on the largest machines, empty and crowded.
func BenchmarkPlace(b *testing.B) {
	for _, name := range []string{"r5.metal", "epyc-nps4", "epyc-l3-as-numa", "m7a.24xlarge"} {
		topology := machine(b, name)
		for _, claims := range []int{0, 100, 1000} {
			state := numa.State{}
			if claims > 0 {
				state = crowd(b, topology, claims)
			}
			for _, r := range []numa.Request{
				{Milli: 500, Width: 2, Pod: "pod"},
				{CPU: numa.Dedicated, Width: 6, Milli: 6000, Pod: "pod"},
			} {
				kind := "shared"
				if r.CPU == numa.Dedicated {
					kind = "dedicated"
				}
				r.Granted = topology.Online
				b.Run(fmt.Sprintf("%s/%d-claims/%s", name, claims, kind), func(b *testing.B) {
					b.ReportAllocs()
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					took := make([]time.Duration, 0, b.N)
					for b.Loop() {
						begin := cpuTime(b)
						if _, err := topology.Place(state, r); err != nil {
							b.Fatal(err)
						}
						took = append(took, cpuTime(b)-begin)
					}
					slices.Sort(took)
					b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
					b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
				})
			}
		}
	}
}
