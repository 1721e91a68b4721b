package main

import (
	"slices"
	"time"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// score is what came of a run.
type score struct {
	arrived, placed int
	// avoidable are the containers spread over nodes though one had room,
	// forced those though they are not larger than a node.
	avoidable, forced int
	// imbalance and shared are sums over arrivals.
	imbalance, shared float64
	// fitting are the containers for which a cache had room, caches the sum of
	// the caches that they touch beyond one.
	fitting, caches int
	// overlaps are the containers that got a CPU of another.
	overlaps int
	// took are the times that our decisions took.
	took []time.Duration
}

// resident is a container that runs.
type resident struct {
	owned, idle cpuset.Set
	leaves      float64
}

// warmUp is the part of the arrivals before which nothing is counted: the
// machine fills.
const warmUp = 0.1

// run plays arrivals on an empty machine.
func run(b *board, w way, arrivals []arrival) (s score) {
	residents := map[int]resident{}
	nodeSize := b.largestNode()
	for i, a := range arrivals {
		b.depart(w, residents, a.at)
		counts := float64(i) >= warmUp*float64(len(arrivals))
		if counts {
			s.arrived++
			s.imbalance += b.imbalance()
			s.shared += float64(b.sharedCores())
		}
		if b.free(b.t.Online) < a.cpus {
			continue
		}
		fits := slices.ContainsFunc(b.hosts, func(n int) bool { return b.freeOn(n) >= a.cpus })
		cached := slices.ContainsFunc(b.t.Caches, func(c numa.Cache) bool { return b.free(c.CPUs) >= a.cpus })
		owned, idle := w.place(b, a.cpus)
		if owned.IsEmpty() {
			continue
		}
		if all := owned.Union(idle); b.free(all) != all.Len() || owned.Len() < a.cpus {
			s.overlaps++
		}
		for cpu := range owned.Union(idle).All() {
			b.owner[cpu] = i
		}
		residents[i] = resident{owned, idle, a.leaves}
		if !counts {
			continue
		}
		s.placed++
		if o, ok := w.(*ours); ok {
			s.took = append(s.took, o.took)
		}
		if touched(owned, b.nodeOf) > 1 && a.cpus <= nodeSize {
			if fits {
				s.avoidable++
			} else {
				s.forced++
			}
		}
		if cached {
			s.fitting++
			s.caches += touched(owned, b.cacheOf) - 1
		}
	}
	return s
}

// depart removes who has left by now. Ways must not depend on the order.
func (b *board) depart(w way, residents map[int]resident, now float64) {
	for i, r := range residents {
		if r.leaves > now {
			continue
		}
		for cpu := range r.owned.Union(r.idle).All() {
			b.owner[cpu] = free
		}
		w.left(r.owned)
		delete(residents, i)
	}
}

// largestNode is its number of CPUs.
func (b *board) largestNode() (cpus int) {
	for _, n := range b.hosts {
		cpus = max(cpus, b.t.Nodes[n].CPUs.Len())
	}
	return cpus
}

// add joins the scores of two runs.
func (s *score) add(o score) {
	s.arrived += o.arrived
	s.placed += o.placed
	s.avoidable += o.avoidable
	s.forced += o.forced
	s.imbalance += o.imbalance
	s.shared += o.shared
	s.fitting += o.fitting
	s.caches += o.caches
	s.overlaps += o.overlaps
	s.took = append(s.took, o.took...)
}

// per is a part of the containers placed, in per cent.
func (s *score) per(n int) float64 { return percent(float64(n), s.placed) }

func percent(x float64, of int) float64 { return 100 * x / float64(max(of, 1)) }

func (s *score) meanImbalance() float64 { return s.imbalance / float64(max(s.arrived, 1)) }
func (s *score) meanShared() float64    { return s.shared / float64(max(s.arrived, 1)) }
func (s *score) extraCaches() float64   { return float64(s.caches) / float64(max(s.fitting, 1)) }

// quantile is that of the decisions' times.
func (s *score) quantile(q float64) time.Duration {
	if len(s.took) == 0 {
		return 0
	}
	slices.Sort(s.took)
	return s.took[int(q*float64(len(s.took)-1))]
}
