package numa

import (
	"slices"

	"containerd-shim-numa-v1/numa/cpuset"
)

// choice is how good the chosen cores are.
type choice struct {
	// caches is how many more they touch than the fewest that could do.
	caches int
	// shared are the cores of which another claim has or may get a thread.
	shared int
	// moved are the previous CPUs that are not kept.
	moved int
}

// choose chooses CPUs on a set of nodes, filling one after the other. It
// reports false if they cannot give that many without taking from a pool. Keep
// is to keep as many as possible of those that the request has had.
func (q *search) choose(set []int, keep bool) (c choice, ok bool) {
	for _, n := range set {
		q.eachSquare(n, func(s *square) { s.chosen, s.most = 0, q.offer(s) })
	}
	left := q.width
	if keep && !q.r.PreviousCPUs.IsEmpty() {
		left -= q.keep(set)
	}
	for _, n := range set {
		mine := 0
		q.eachSquare(n, func(s *square) { mine += s.chosen })
		left -= q.fill(n, min(left, q.nodes[n].gives-mine))
	}
	if left > 0 {
		return c, false
	}
	for _, n := range set {
		if l := &q.nodes[n]; len(l.pools) > 0 {
			owned, idle := q.chosen([]int{n})
			if !l.leaves(owned.Union(idle)) {
				return c, false
			}
		}
	}
	return q.judge(set), true
}

// keep chooses the previous CPUs on a set of nodes and returns how many, or, if
// they are enough, leaves no others to be chosen.
func (q *search) keep(set []int) (kept int) {
	had := func(s *square) int {
		if q.r.Thread == RequireCores && s.kept > 0 {
			return s.most
		}
		return min(s.kept, s.most)
	}
	for _, n := range set {
		q.eachSquare(n, func(s *square) { kept += had(s) })
	}
	enough := kept >= q.width
	for _, n := range set {
		q.eachSquare(n, func(s *square) {
			if enough {
				s.most = had(s)
			} else {
				s.chosen = had(s)
			}
		})
	}
	if enough {
		return 0
	}
	return kept
}

// fill chooses up to n CPUs of a node, fast cores first, and returns how many.
func (q *search) fill(node, n int) (got int) {
	groups := q.cores.groups[node]
	for _, efficient := range []bool{false, true} {
		for got < n {
			best, bestFit := -1, fit{}
			for i := range groups {
				if groups[i].efficient != efficient {
					continue
				}
				if f := q.fit(&groups[i], n-got); f.left > 0 && (best < 0 || f.better(bestFit)) {
					best, bestFit = i, f
				}
			}
			if best < 0 {
				break
			}
			got += q.take(&groups[best], min(n-got, bestFit.left))
		}
	}
	return got
}

// fit is how well a group suits a number of CPUs.
type fit struct {
	// left is how many CPUs it has to give; holds tells that they suffice.
	left  int
	holds bool
	// touched tells that some of it is chosen already.
	touched bool
	// shared is how many cores would be shared, broken how many whole ones
	// would be broken for it.
	shared, broken int
}

func (q *search) fit(g *coreGroup, n int) (f fit) {
	whole, threads := 0, 1
	parts := 0
	for _, core := range g.cores {
		s := &q.cores.squares[core]
		f.touched = f.touched || s.chosen > 0
		if s.most <= s.chosen {
			continue
		}
		f.left += s.most - s.chosen
		if s.complete() && s.chosen == 0 {
			whole += s.most
			threads = max(threads, s.most)
		} else {
			parts += s.most - s.chosen
		}
	}
	f.holds = f.left >= n
	if q.r.Thread != PreferCores || !f.holds {
		return f
	}
	rest := n % threads
	if n > whole {
		rest = n - whole
	}
	f.shared = rest
	if parts < rest {
		f.broken = 1
	}
	return f
}

// better prefers caches that are touched anyway; then those that hold what is
// missing, sharing and breaking the fewest cores, as tightly as possible; and
// else the largest.
func (f fit) better(g fit) bool {
	switch {
	case f.holds != g.holds:
		return f.holds
	case f.touched != g.touched:
		return f.touched
	case !f.holds:
		return f.left > g.left
	case f.shared != g.shared:
		return f.shared < g.shared
	case f.broken != g.broken:
		return f.broken < g.broken
	}
	return f.left < g.left
}

// take chooses n CPUs of a group, or a few more where cores are not divided,
// and returns how many.
func (q *search) take(g *coreGroup, n int) (got int) {
	choose := func(s *square, k int) {
		s.chosen += k
		got += k
	}
	squares := q.cores.squares
	if q.r.Thread != PreferCores {
		for _, complete := range []bool{true, false} {
			for _, core := range g.cores {
				if s := &squares[core]; got < n && s.complete() == complete && s.chosen < s.most {
					choose(s, s.most-s.chosen)
				}
			}
		}
		return got
	}
	// The other halves of its own cores, then whole cores.
	for _, core := range g.cores {
		if s := &squares[core]; s.chosen > 0 && s.chosen < s.most {
			choose(s, min(n-got, s.most-s.chosen))
		}
	}
	for _, core := range g.cores {
		s := &squares[core]
		if s.chosen == 0 && s.complete() && s.most == s.threads && s.most <= n-got {
			choose(s, s.most)
		}
	}
	// What remains goes to cores that are shared already: the one with the
	// fewest threads that suffice, or else with the most.
	for got < n {
		s := q.remnant(g, n-got)
		if s == nil {
			break
		}
		choose(s, min(n-got, s.most-s.chosen))
	}
	return got
}

func (q *search) remnant(g *coreGroup, n int) (best *square) {
	better := func(a, b *square) bool {
		if b == nil || a.complete() != b.complete() {
			return b == nil || b.complete()
		}
		x, y := a.most-a.chosen, b.most-b.chosen
		if (x >= n) != (y >= n) {
			return x >= n
		}
		if x >= n {
			return x < y
		}
		return x > y
	}
	for _, core := range g.cores {
		if s := &q.cores.squares[core]; s.chosen < s.most && better(s, best) {
			best = s
		}
	}
	return best
}

// judge says how good what is chosen on a set of nodes is.
func (q *search) judge(set []int) (c choice) {
	kept, touched := 0, 0
	var sizes [32]int
	all := sizes[:0]
	for _, n := range set {
		groups := q.cores.groups[n]
		for g := range groups {
			own := 0
			for _, core := range groups[g].cores {
				s := &q.cores.squares[core]
				own += s.chosen
				kept += min(s.kept, s.chosen)
				if s.chosen > 0 && q.r.Thread == PreferCores && s.chosen < s.threads {
					c.shared++
				}
			}
			// Fast and slow cores may share a cache.
			if own > 0 && !slices.ContainsFunc(groups[:g], func(h coreGroup) bool { return h.cache == groups[g].cache && q.touches(&h) }) {
				touched++
			}
			all = append(all, groups[g].size)
		}
	}
	c.moved = q.r.PreviousCPUs.Len() - kept
	if touched <= 1 {
		return c
	}
	slices.SortFunc(all, func(a, b int) int { return b - a })
	fewest, room := 0, 0
	for fewest < len(all) && room < q.width {
		room += all[fewest]
		fewest++
	}
	c.caches = max(touched-fewest, 0)
	return c
}

func (q *search) touches(g *coreGroup) bool {
	return slices.ContainsFunc(g.cores, func(core int) bool { return q.cores.squares[core].chosen > 0 })
}

// caches is how many caches the chosen CPUs of a set of nodes touch. Cores of
// which the kernel does not tell the cache count as if they had one together.
func (q *search) caches(set []int) int {
	seen := map[int]bool{}
	for _, n := range set {
		for g := range q.cores.groups[n] {
			for _, core := range q.cores.groups[n][g].cores {
				if q.cores.squares[core].chosen > 0 {
					seen[q.t.Cores[core].Cache] = true
				}
			}
		}
	}
	return len(seen)
}

// chosen are the CPUs that were chosen on a set of nodes, and those that must
// be idle for them.
func (q *search) chosen(set []int) (owned, idle cpuset.Set) {
	var own, still []int
	for _, n := range set {
		groups := q.cores.groups[n]
		for g := range groups {
			for _, core := range groups[g].cores {
				s := &q.cores.squares[core]
				if s.chosen == 0 {
					continue
				}
				own = append(own, s.cpus[:s.chosen]...)
				if q.r.Thread == PreferCores || s.chosen == s.threads {
					continue
				}
				for cpu := range q.t.Cores[core].CPUs.All() {
					if !slices.Contains(s.cpus[:s.chosen], cpu) {
						still = append(still, cpu)
					}
				}
			}
		}
	}
	return cpuset.Of(own...), cpuset.Of(still...)
}
