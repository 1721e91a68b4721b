package numa_test

import (
	"errors"
	"math"
	"testing"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// odd are numbers that nobody should ask for or hold, among others.
func (s *scene) odd() int {
	all := [...]int{0, 1, -1, 999, 1 << 20, math.MaxInt32, math.MinInt, math.MaxInt, math.MaxInt - 998}
	return all[s.r.IntN(len(all))]
}

// oddSet are CPUs or nodes that there may not be.
func (s *scene) oddSet() cpuset.Set {
	switch s.r.IntN(4) {
	case 0:
		return cpuset.Set{}
	case 1:
		return cpuset.Of(cpuset.MaxID)
	case 2:
		return cpuset.Range(0, cpuset.MaxID)
	}
	return s.some()
}

// TestOddClaims places beside claims as only a file that somebody has edited
// can have them, and others of a machine that was another one.
func TestOddClaims(t *testing.T) {
	topologies := topologies(t)
	for seed := range uint64(2000) {
		s := newScene(t, topologies[seed%uint64(len(topologies))], seed)
		for range s.r.IntN(12) {
			c := numa.Claim{
				Pod: []string{"", "a", "b"}[s.r.IntN(3)], Sandbox: s.r.IntN(3) == 0,
				Milli: s.odd(), Width: s.odd(), Bytes: int64(s.odd()), Nodes: s.oddSet(), Granted: s.oddSet(),
			}
			if s.r.IntN(3) == 0 {
				c.Owned, c.Idle = s.oddSet(), s.oddSet()
			}
			s.state.Claims = append(s.state.Claims, c)
			s.state.Demand = s.state.Demand.Add(c)
		}
		r := s.request()
		r.Milli, r.Width, r.Bytes = s.odd(), s.odd(), int64(s.odd())
		r.Hugepages = map[int64]int64{int64(s.odd()): int64(s.odd())}
		r.Devices = []int{s.odd(), 0}
		r.Mems, r.PreviousNodes, r.PreviousCPUs = s.oddSet(), s.oddSet(), s.oddSet()
		p, err := s.topology.Place(s.state, r)
		if err != nil {
			if !errors.Is(err, numa.ErrRefused) || r.Policy == numa.BestEffort {
				t.Errorf("seed %d: %+v: %v", seed, r, err)
			}
			continue
		}
		if p.CPUs.IsEmpty() || !p.CPUs.IsSubset(r.Granted.Intersect(s.topology.Online)) {
			t.Errorf("seed %d: %+v: CPUs %q", seed, r, p.CPUs)
		}
		if all := p.Owned.Union(p.Idle); r.Policy != numa.Unplaced && all.Intersects(taken(s.state.Claims)) {
			t.Errorf("seed %d: %+v: owns %q, others %q", seed, r, all, taken(s.state.Claims))
		}
		for _, c := range s.state.Claims {
			if got := s.topology.SharedCPUs(c, s.state.Claims); got.IsEmpty() && !c.Granted.IsEmpty() {
				t.Errorf("seed %d: %+v has no CPUs", seed, c)
			}
		}
	}
}

// TestBoundlessCPU has others ask for more CPU than can be added up: their node
// has no room.
func TestBoundlessCPU(t *testing.T) {
	m := build(2, 4, 1)
	full := shared(0, 0, 0)
	full.Milli, full.Width = math.MaxInt, math.MaxInt
	for name, claims := range map[string][]numa.Claim{
		"one": {full}, "two": {full, full}, "three": {full, full, full},
		"a pod's": {{Pod: "p", Sandbox: true, Nodes: cpuset.Of(0), Milli: math.MaxInt}, full},
	} {
		for _, cpu := range []numa.CPUPolicy{numa.Shared, numa.Dedicated} {
			r := numa.Request{Granted: m.Online, CPU: cpu, Milli: 1000, Width: 1, Policy: numa.SingleNode}
			if p, err := m.Place(numa.State{Claims: claims}, r); err != nil || p.Nodes.String() != "1" {
				t.Errorf("%s, %d: on node %q, %v", name, cpu, p.Nodes, err)
			}
		}
	}
	var d numa.Demand
	if d = d.Add(full); d[len(d)-1] != 1 {
		t.Errorf("demand %v", d)
	}
}
