package numa_test

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/numa/machines"
)

// scene is a machine in a random state, and a request.
type scene struct {
	*testing.T
	r        *rand.Rand
	topology *numa.Topology
	state    numa.State
}

func newScene(t *testing.T, topology *numa.Topology, seed uint64) *scene {
	return &scene{T: t, r: rand.New(rand.NewPCG(seed, 0)), topology: topology}
}

// some are random CPUs that are online, at least one.
func (s *scene) some() cpuset.Set {
	online := s.topology.Online
	if s.r.IntN(3) > 0 {
		return online
	}
	var cpus cpuset.Set
	for cpus.IsEmpty() {
		cpus = cpuset.Collect(func(yield func(int) bool) {
			for cpu := range online.All() {
				if s.r.IntN(4) > 0 && !yield(cpu) {
					return
				}
			}
		})
	}
	return cpus
}

func (s *scene) request() numa.Request {
	r := numa.Request{
		Policy:   numa.Policy(s.r.IntN(4)),
		CPU:      numa.CPUPolicy(s.r.IntN(2)),
		Thread:   numa.ThreadPolicy(s.r.IntN(3)),
		Cache:    numa.CachePolicy(s.r.IntN(3)),
		Memory:   numa.MemoryPolicy(s.r.IntN(4)),
		Strategy: numa.Strategy(s.r.IntN(3)),
		Milli:    s.r.IntN(8000),
		Width:    s.r.IntN(s.topology.Online.Len()/4 + 3),
		Bytes:    s.r.Int64N(1 << 33),
		Granted:  s.some(),
		Pod:      []string{"", "a", "b"}[s.r.IntN(3)],
	}
	if s.r.IntN(4) == 0 {
		r.Hugepages = map[int64]int64{2 << 20: s.r.Int64N(1 << 30)}
	}
	for range s.r.IntN(3) {
		r.Devices = append(r.Devices, s.r.IntN(len(s.topology.Nodes)))
	}
	if s.r.IntN(4) == 0 {
		r.Mems = cpuset.Of(s.topology.Nodes[s.r.IntN(len(s.topology.Nodes))].ID)
	}
	return r
}

func claimOf(r numa.Request, p numa.Placement) numa.Claim {
	return numa.Claim{
		Pod: r.Pod, Milli: r.Milli, Width: r.Width, Bytes: r.Bytes,
		Nodes: p.Nodes, Owned: p.Owned, Idle: p.Idle, Granted: r.Granted,
	}
}

// fill places containers and removes some.
func (s *scene) fill() {
	for range s.r.IntN(30) {
		r := s.request()
		p, err := s.topology.Place(s.state, r)
		s.check(r, p, err)
		if err != nil {
			continue
		}
		c := claimOf(r, p)
		c.Sandbox = s.r.IntN(8) == 0 && c.Owned.IsEmpty()
		s.state.Claims = append(s.state.Claims, c)
		s.state.Demand = s.state.Demand.Add(c)
		if i := s.r.IntN(len(s.state.Claims)); s.r.IntN(4) == 0 {
			s.state.Claims = append(s.state.Claims[:i], s.state.Claims[i+1:]...)
		}
	}
}

func taken(claims []numa.Claim) (all cpuset.Set) {
	for _, c := range claims {
		all = all.Union(c.Owned).Union(c.Idle)
	}
	return all
}

// check checks what holds of every placement.
func (s *scene) check(r numa.Request, p numa.Placement, err error) {
	s.Helper()
	if err != nil {
		if !errors.Is(err, numa.ErrRefused) || r.Policy == numa.BestEffort || r.Policy == numa.Unplaced {
			s.Errorf("%+v: %v", r, err)
		}
		return
	}
	if p.CPUs.IsEmpty() || !p.CPUs.IsSubset(r.Granted.Intersect(s.topology.Online)) {
		s.Errorf("%+v: CPUs %q are not granted", r, p.CPUs)
	}
	if r.Policy == numa.Unplaced {
		return
	}
	all := p.Owned.Union(p.Idle)
	if others := taken(s.state.Claims); all.Intersects(others) || p.Owned.Intersects(p.Idle) {
		s.Errorf("%+v: owns %q, keeps %q idle; %q are others'", r, p.Owned, p.Idle, others)
	}
	if r.Policy == numa.SingleNode && p.Nodes.Len() != 1 {
		s.Errorf("%+v: on nodes %q", r, p.Nodes)
	}
	if !r.Mems.IsEmpty() && !p.Mems.IsSubset(r.Mems) {
		s.Errorf("%+v: memory of %q", r, p.Mems)
	}
	if p.Reason == "" || len(p.Candidates) == 0 || !p.Candidates[0].Nodes.Equal(p.Nodes) || len(p.Candidates) > numa.MaxCandidates {
		s.Errorf("%+v: %+v is not explained", r, p)
	}
	s.checkShared(r, p)
	if p.Owned.IsEmpty() {
		return
	}
	if p.Owned.Len() < max(r.Width, 1) {
		s.Errorf("%+v: owns %q", r, p.Owned)
	}
	for _, core := range s.topology.Cores {
		switch n := core.CPUs.Overlap(p.Owned); {
		case n == 0:
		case r.Thread == numa.IsolateThreads && n > 1,
			r.Thread != numa.PreferCores && !core.CPUs.IsSubset(all):
			s.Errorf("%+v: owns %q of core %q, keeps %q idle", r, p.Owned, core.CPUs, p.Idle)
		}
	}
}

// checkShared checks that a dedicated placement leaves every other shared claim
// something, if it had something before.
func (s *scene) checkShared(r numa.Request, p numa.Placement) {
	s.Helper()
	after := append(append([]numa.Claim{}, s.state.Claims...), claimOf(r, p))
	before, now := taken(s.state.Claims), taken(after)
	for i, c := range s.state.Claims {
		if !c.Owned.IsEmpty() || c.Sandbox || c.Nodes.IsEmpty() {
			continue
		}
		had := s.topology.SharedCPUs(c, append(append([]numa.Claim{}, s.state.Claims[:i]...), s.state.Claims[i+1:]...))
		has := s.topology.SharedCPUs(c, append(append([]numa.Claim{}, after[:i]...), after[i+1:]...))
		if has.IsEmpty() || !has.IsSubset(c.Granted) {
			s.Errorf("%+v: has %q", c, has)
		}
		if !had.Intersects(before) && has.Intersects(now) {
			s.Errorf("%+v had %q; %+v took the last of it", c, had, p)
		}
	}
}

// checkLaws checks what holds of placements in comparison.
func (s *scene) checkLaws(r numa.Request) {
	s.Helper()
	p, err := s.topology.Place(s.state, r)
	s.check(r, p, err)
	mixed := s.state
	mixed.Claims = append([]numa.Claim{}, s.state.Claims...)
	s.r.Shuffle(len(mixed.Claims), func(i, j int) { mixed.Claims[i], mixed.Claims[j] = mixed.Claims[j], mixed.Claims[i] })
	again, errAgain := s.topology.Place(mixed, r)
	if !reflect.DeepEqual(p, again) || (err == nil) != (errAgain == nil) || err != nil && err.Error() != errAgain.Error() {
		s.Errorf("%+v: the order of claims matters:\n%+v %v\n%+v %v", r, p, err, again, errAgain)
	}
	if err != nil || r.Policy == numa.Unplaced {
		return
	}
	// Whoever is on several nodes would have been refused on one.
	if p.Nodes.Len() > 1 {
		single := r
		single.Policy = numa.SingleNode
		if q, err := s.topology.Place(s.state, single); err == nil {
			s.Errorf("%+v: on %q, though %q has room", r, p.Nodes, q.Nodes)
		}
	}
	// A resize to the same size changes nothing.
	same := r
	same.PreviousNodes, same.PreviousCPUs = p.Nodes, p.Owned
	if r.Cache == numa.RequireCache {
		return
	}
	if q, err := s.topology.Place(s.state, same); err != nil || !q.Nodes.Equal(p.Nodes) || !q.CPUs.Equal(p.CPUs) {
		s.Errorf("%+v: had %q on %q, has %q on %q (%v)", same, p.CPUs, p.Nodes, q.CPUs, q.Nodes, err)
	}
}

func topologies(t testing.TB) []*numa.Topology {
	list := []*numa.Topology{build(2, 4, 2), build(4, 3, 1), build(3, 2, 4)}
	for _, name := range machines.Names() {
		list = append(list, machine(t, name))
	}
	return list
}

func TestPlacementsHoldTheirPromises(t *testing.T) {
	const rounds = 25
	seed := rand.Uint64()
	for i, topology := range topologies(t) {
		for round := range uint64(rounds) {
			s := newScene(t, topology, seed+round)
			s.fill()
			s.checkLaws(s.request())
			if t.Failed() {
				t.Fatalf("machine %d, seed %d", i, seed+round)
			}
		}
	}
}

// TestResizeMovesLittle grows and shrinks a dedicated container that has room.
func TestResizeMovesLittle(t *testing.T) {
	for _, thread := range []numa.ThreadPolicy{numa.PreferCores, numa.RequireCores, numa.IsolateThreads} {
		topology := machine(t, "epyc-nps4")
		r := numa.Request{CPU: numa.Dedicated, Thread: thread, Width: 3, Granted: topology.Online, Policy: numa.SingleNode}
		for _, width := range []int{3, 4, 8, 7, 12, 2, 16, 15, 1} {
			r.Width = width
			p, err := topology.Place(numa.State{}, r)
			if err != nil {
				t.Fatal(err)
			}
			if !p.Owned.IsSubset(r.PreviousCPUs) && !r.PreviousCPUs.IsSubset(p.Owned) {
				t.Errorf("%d CPUs: had %q, has %q", width, r.PreviousCPUs, p.Owned)
			}
			if !r.PreviousNodes.IsEmpty() && !p.Nodes.Equal(r.PreviousNodes) {
				t.Errorf("%d CPUs: was on %q, is on %q", width, r.PreviousNodes, p.Nodes)
			}
			r.PreviousNodes, r.PreviousCPUs = p.Nodes, p.Owned
		}
	}
}

func FuzzPlace(f *testing.F) {
	all := topologies(f)
	for i := range all {
		f.Add(i, uint64(i), 0, 4000, 4, uint8(0))
	}
	f.Fuzz(func(t *testing.T, machine int, seed uint64, nodes, milli, width int, kinds uint8) {
		const bound = 1 << 20
		if machine < 0 {
			machine = -(machine + 1)
		}
		s := newScene(t, all[machine%len(all)], seed)
		s.fill()
		r := s.request()
		r.Milli, r.Width = milli%bound, width%bound
		r.CPU, r.Thread, r.Policy = numa.CPUPolicy(kinds&1), numa.ThreadPolicy(kinds>>1%3), numa.Policy(kinds>>3%4)
		if nodes > 0 {
			r.PreviousNodes = cpuset.Of(nodes % 64)
			r.PreviousCPUs = s.some()
		}
		p, err := s.topology.Place(s.state, r)
		s.check(r, p, err)
	})
}
