package numa

import "slices"

// relaxed are the wishes that are given up one after the other when a request
// cannot be placed otherwise, in this order.
type relaxed struct {
	// cache: RequireCache. memory: where the memory comes from. dedicated: CPUs
	// of its own. load: no more load than there are CPUs. width: the number of
	// CPUs.
	cache, memory, dedicated, load, width bool
	// owned: that nobody owns the CPUs.
	owned bool
}

// relax gives up the next wish that the request has. It reports false if there
// is none.
func (q *search) relax() bool {
	g := &q.given
	switch {
	case !g.cache && q.dedicated() && q.r.Cache == RequireCache:
		g.cache = true
	case !g.memory && q.r.Memory == BindMemory:
		g.memory = true
	case !g.dedicated && q.r.CPU == Dedicated:
		g.dedicated = true
		q.width = min(q.width, q.usable.Len())
		for _, n := range q.hosts {
			q.nodes[n].gives = q.nodes[n].avail.Len()
		}
	case !g.load:
		g.load = true
	case !g.width:
		g.width = true
		q.narrow()
	default:
		return false
	}
	return true
}

// narrow makes do with the CPUs there are: those that nobody owns or, if there
// are none, all that are granted.
func (q *search) narrow() {
	all := 0
	for _, n := range q.hosts {
		all += q.nodes[n].gives
	}
	if all == 0 {
		q.given.owned = true
		for _, n := range q.hosts {
			q.nodes[n].avail = q.t.Nodes[n].CPUs.Intersect(q.usable)
			q.nodes[n].gives = q.nodes[n].avail.Len()
			all += q.nodes[n].gives
		}
	}
	q.width = min(q.width, all)
}

func (q *search) dedicated() bool { return q.r.CPU == Dedicated && !q.given.dedicated }

// lack is what keeps a set of nodes from taking a request.
type lack int

const (
	nothing lack = iota
	lacksGrant
	lacksCPUs
	lacksRoom
	lacksMemory
	lacksHugepages
	lacksCache
)

// spare is how much more load a set of nodes takes on the CPUs that the request
// may use, in thousandths of a CPU.
func (q *search) spare(set []int) (milli int) {
	for _, n := range set {
		l := &q.nodes[n]
		milli += max(l.avail.Len()*milliPerCPU-l.mine, 0)
	}
	return milli
}

func (q *search) lacks(set []int) lack {
	gives := 0
	granted := false
	for _, n := range set {
		gives += q.nodes[n].gives
		granted = granted || q.t.Nodes[n].CPUs.Intersects(q.usable)
	}
	switch {
	case !granted:
		return lacksGrant
	case gives < q.width:
		return lacksCPUs
	case !q.dedicated() && !q.given.load && q.spare(set) < q.r.Milli:
		return lacksRoom
	case q.bound() && !q.memoryFits(set, true):
		return lacksMemory
	case q.bound() && !q.hugepagesFit(set):
		return lacksHugepages
	}
	return nothing
}

// sets are sets of several nodes that take the request: from each node on, and
// from those it had before, the closest ones are added until it fits. Of the
// 2^n sets there are, at most n+2 are looked at.
func (q *search) sets() (sets [][]int) {
	add := func(set []int) {
		if len(set) > 1 && !slices.ContainsFunc(sets, func(other []int) bool { return slices.Equal(other, set) }) {
			sets = append(sets, set)
		}
	}
	var before []int
	for _, n := range q.hosts {
		if q.r.PreviousNodes.Contains(q.t.Nodes[n].ID) && q.nodes[n].gives > 0 {
			before = append(before, n)
		}
	}
	if len(before) > 0 {
		add(q.grow(before, false))
	}
	largest := -1
	for _, n := range q.hosts {
		if q.nodes[n].gives == 0 {
			continue
		}
		add(q.grow([]int{n}, false))
		if largest < 0 || q.nodes[n].gives > q.nodes[largest].gives {
			largest = n
		}
	}
	if largest >= 0 {
		add(q.grow([]int{largest}, true))
	}
	return sets
}

// grow adds nodes to a seed until the request fits, the closest or the largest
// first, and returns them ascending; nil if it does not fit on all of them.
func (q *search) grow(seed []int, bySize bool) []int {
	set := slices.Clone(seed)
	for q.lacks(set) != nothing {
		next, completes, near := -1, false, 0
		for _, n := range q.hosts {
			if q.nodes[n].gives == 0 || slices.Contains(set, n) {
				continue
			}
			far := 0
			for _, m := range seed {
				far += q.distance(m, n)
			}
			if bySize {
				far = -q.nodes[n].gives
			}
			// The first that completes the set ends it; a closer one that does
			// not would only make it larger.
			whole := q.lacks(append(set, n)) == nothing
			if next < 0 || whole && !completes || whole == completes && far < near {
				next, completes, near = n, whole, far
			}
		}
		if next < 0 {
			return nil
		}
		set = append(set, next)
	}
	// The first ones may have become superfluous.
	for i := len(set) - 1; i >= len(seed); i-- {
		if less := slices.Delete(slices.Clone(set), i, i+1); q.lacks(less) == nothing {
			set = less
		}
	}
	slices.Sort(set)
	return set
}

// fewest is how many nodes the request would need were the machine empty, and
// all nodes where even they do not suffice.
func (q *search) fewest() int {
	var buf [64]int
	sizes := buf[:0]
	need := q.width
	for _, n := range q.hosts {
		size := q.t.Nodes[n].CPUs.Overlap(q.usable)
		if q.dedicated() {
			size = 0
			for g := range q.cores.groups[n] {
				size += q.cores.groups[n][g].size
			}
		} else {
			need = max(need, ceilDiv(q.r.Milli, milliPerCPU))
		}
		sizes = append(sizes, size)
	}
	slices.SortFunc(sizes, func(a, b int) int { return b - a })
	for i, size := range sizes {
		if need -= size; need <= 0 {
			return i + 1
		}
	}
	return len(sizes)
}
