package numa

import "slices"

// coreBoard is what a dedicated request can choose of the machine's cores, and
// what it has chosen so far.
type coreBoard struct {
	// squares are the cores, by index in Topology.Cores.
	squares []square
	// groups are the cores of one node, cache and speed, by node.
	groups [][]coreGroup
}

// square is a core on the board.
type square struct {
	// cpus are those that the request can get of it, its previous ones first.
	cpus []int
	// threads is how many CPUs the core has; whole tells that none of them is
	// another claim's.
	threads int
	whole   bool
	// kept is how many of cpus the request has had before.
	kept int
	// most and chosen are how many of cpus may be and are chosen.
	most, chosen int
}

// coreGroup are the cores of a node that share a cache and are equally fast.
type coreGroup struct {
	cache     int
	efficient bool
	cores     []int
	// size is how many CPUs it would give were nobody else there.
	size int
}

// layBoard finds what the cores of the machine can give.
func (q *search) layBoard() {
	t := q.t
	b := &q.cores
	b.squares = make([]square, len(t.Cores))
	b.groups = make([][]coreGroup, len(t.Nodes))
	ids := make([]int, 0, t.Online.Len())
	for i := range t.Cores {
		core, s := &t.Cores[i], &b.squares[i]
		open := q.nodes[core.Node].open
		s.threads = core.CPUs.Len()
		s.whole = true
		begin, usable := len(ids), 0
		for cpu := range core.CPUs.All() {
			s.whole = s.whole && !q.taken.Contains(cpu)
			mine := q.usable.Contains(cpu)
			if mine {
				usable++
			}
			switch {
			case !open.Contains(cpu):
				// Withheld for a pool: others would run on the core.
				s.whole = s.whole && !mine
			case q.r.PreviousCPUs.Contains(cpu):
				ids = slices.Insert(ids, begin+s.kept, cpu)
				s.kept++
			default:
				ids = append(ids, cpu)
			}
		}
		s.cpus = ids[begin:len(ids):len(ids)]
		if usable == 0 {
			continue
		}
		if q.r.Thread == IsolateThreads {
			usable = 1
		}
		q.group(i).size += usable
	}
}

// group returns the group of a core, entering the core.
func (q *search) group(core int) *coreGroup {
	c := &q.t.Cores[core]
	cache := c.Cache
	if q.r.Cache == IgnoreCache {
		cache = -1
	}
	groups := q.cores.groups[c.Node]
	// Neighbours are mostly in the same group, the last one.
	for i := len(groups) - 1; i >= 0; i-- {
		if g := &groups[i]; g.cache == cache && g.efficient == c.Efficient {
			g.cores = append(g.cores, core)
			return g
		}
	}
	q.cores.groups[c.Node] = append(groups, coreGroup{cache: cache, efficient: c.Efficient, cores: []int{core}})
	return &q.cores.groups[c.Node][len(groups)]
}

// offer is how many CPUs of a core the request can get.
func (q *search) offer(s *square) int {
	switch {
	case q.r.Thread == PreferCores:
		return len(s.cpus)
	case !s.whole || len(s.cpus) == 0:
		return 0
	case q.r.Thread == IsolateThreads:
		return 1
	}
	return len(s.cpus)
}

// takes is how many CPUs a core loses to others with n of them chosen.
func (q *search) takes(s *square, n int) int {
	if q.r.Thread == PreferCores || n == 0 {
		return n
	}
	return s.threads
}

// countGives finds how many CPUs each node can give.
func (q *search) countGives() {
	for _, n := range q.hosts {
		q.nodes[n].gives = q.nodes[n].avail.Len()
	}
	if q.r.CPU != Dedicated {
		return
	}
	q.layBoard()
	for _, n := range q.hosts {
		q.nodes[n].gives = q.dedicatedGives(n)
	}
}

// dedicatedGives is how many CPUs of a node the request can own. Where the
// pools limit it, cores that take the most for what they give count first, so
// that any choice of that many CPUs is within the limit.
func (q *search) dedicatedGives(n int) int {
	gives, takes := 0, 0
	q.eachSquare(n, func(s *square) {
		offer := q.offer(s)
		gives += offer
		takes += q.takes(s, offer)
	})
	limit := q.nodes[n].limit
	if takes <= limit {
		return gives
	}
	if q.r.Thread == PreferCores {
		return min(gives, limit)
	}
	gives = 0
	for threads := q.t.ThreadsPerCore; threads > 0; threads-- {
		q.eachSquare(n, func(s *square) {
			if offer := q.offer(s); s.threads == threads && offer > 0 && limit >= threads {
				gives += offer
				limit -= threads
			}
		})
	}
	return gives
}

func (q *search) eachSquare(n int, do func(*square)) {
	groups := q.cores.groups[n]
	for g := range groups {
		for _, core := range groups[g].cores {
			do(&q.cores.squares[core])
		}
	}
}

// complete reports whether all threads of the core can be the request's.
func (s *square) complete() bool { return s.whole && len(s.cpus) == s.threads }
