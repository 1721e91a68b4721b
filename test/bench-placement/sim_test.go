package main

import (
	"math"
	"testing"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// TestOursKeepsItsPromises plays a short form of the simulation.
func TestOursKeepsItsPromises(t *testing.T) {
	const arrivals, load = 400, 0.95
	for _, name := range []string{"r5.metal", "xeon-snc2", "m7a.24xlarge"} {
		topology, err := machine(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mixes() {
			for _, w := range []*ours{
				{title: titleOurs},
				{title: titleRequire, thread: numa.RequireCores},
				{title: titleIsolate, thread: numa.IsolateThreads},
			} {
				s := run(newBoard(topology), w, m.arrivals(topology, load, arrivals, 1))
				if s.placed == 0 || s.overlaps > 0 || s.avoidable > 0 && w.thread == numa.PreferCores {
					t.Errorf("%s, %s, %s: %d placed, %d overlap, %d avoidably spread", name, m.name, w.title, s.placed, s.overlaps, s.avoidable)
				}
				if s.shared > 0 && w.thread != numa.PreferCores {
					t.Errorf("%s, %s, %s: cores are shared", name, m.name, w.title)
				}
			}
		}
	}
}

// TestEveryWayGivesFreeCPUs checks the ways that we compare with.
func TestEveryWayGivesFreeCPUs(t *testing.T) {
	topology, err := machine("epyc-nps4")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ways(1) {
		s := run(newBoard(topology), w, mixes()[1].arrivals(topology, 0.95, 300, 1))
		if s.placed == 0 || s.overlaps > 0 {
			t.Errorf("%s: %d placed, %d overlap", w.name(), s.placed, s.overlaps)
		}
	}
}

// TestKubeletWithoutHints pins down what is said of it: it goes on from the
// fullest package without asking whether the request fits there.
func TestKubeletWithoutHints(t *testing.T) {
	topology, err := machine("r5.metal")
	if err != nil {
		t.Fatal(err)
	}
	b := newBoard(topology)
	for cpu := range b.pack([]int{0}, 44).All() {
		b.owner[cpu] = 0
	}
	for _, c := range []struct {
		hints bool
		nodes int
	}{{false, 2}, {true, 1}} {
		owned, _ := (&kubelet{hints: c.hints}).place(b, 8)
		if got := touched(owned, b.nodeOf); owned.Len() != 8 || got != c.nodes {
			t.Errorf("hints %t: %q, on %d nodes", c.hints, owned, got)
		}
	}
}

// TestArrivalsOfferTheLoad checks the stream that all ways see.
func TestArrivalsOfferTheLoad(t *testing.T) {
	const n, load, tolerance = 200_000, 0.6, 0.05
	topology := &numa.Topology{
		Nodes:  []numa.Node{{CPUs: cpuset.Range(0, 63)}},
		Online: cpuset.Range(0, 63),
	}
	for _, m := range mixes() {
		work, last := 0.0, 0.0
		for _, a := range m.arrivals(topology, load, n, 7) {
			work += (a.leaves - a.at) * float64(a.cpus)
			last = a.at
		}
		if got := work / last / 64; math.Abs(got-load) > tolerance {
			t.Errorf("%s offers %.3f", m.name, got)
		}
	}
}
