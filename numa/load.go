package numa

import (
	"fmt"

	"containerd-shim-numa-v1/numa/cpuset"
)

// search is one run of Place: the request, and what the claims leave to it.
// Nodes go by their index in Topology.Nodes here.
type search struct {
	t *Topology
	s State
	r Request
	// next is what other requests will need.
	next forecast

	usable cpuset.Set
	taken  cpuset.Set
	nodes  []nodeLoad
	// hosts are the nodes with usable CPUs.
	hosts []int
	// peers are the nodes of the pod's other claims, by ID.
	peers cpuset.Set
	// width is how many CPUs the request needs, at least 1.
	width int
	given relaxed
	cores coreBoard
}

// nodeLoad is what the claims leave of a node.
type nodeLoad struct {
	// free are its CPUs that nobody owns; avail those of them that the request
	// may use, and open those that it may also own.
	free, avail, open cpuset.Set
	// whole tells that avail is all of free.
	whole bool
	// milli is the load of shared claims, mine the part of it on avail.
	milli, mine int
	// bytes is the memory that claims expect to use.
	bytes int64
	// pools are the shared claims by what they are granted.
	pools []pool
	// limit is how many CPUs may be owned in addition without taking them
	// from the pools; gives how many the request can get.
	limit, gives int
	// home is the node that its memory comes from, -1 if the request is
	// granted none.
	home int
}

// pool are the shared claims on a node that are granted the same CPUs.
type pool struct {
	granted      cpuset.Set
	milli, width int
}

// need is how many CPUs must be left for the pool.
func (p *pool) need() int { return max(ceilDiv(p.milli, milliPerCPU), p.width, 1) }

func (t *Topology) newSearch(s State, r Request) (*search, error) {
	usable := t.usable(r.Granted)
	if usable.Overlap(t.Online) == 0 {
		return nil, fmt.Errorf("place: of the granted CPUs %q none is online", r.Granted)
	}
	q := &search{t: t, s: s, r: r, usable: usable, width: max(r.Width, 1)}
	if r.CPU == Shared {
		// A limit may be larger than the machine.
		q.width = min(q.width, usable.Len())
	}
	q.taken = takenBy(s.Claims)
	q.nodes = make([]nodeLoad, len(t.Nodes))
	q.hosts = make([]int, 0, len(t.Nodes))
	online := t.Online
	if usable.Overlap(t.Isolated) == 0 {
		online = online.Difference(t.Isolated)
	}
	online = online.Difference(q.taken)
	for n := range q.nodes {
		l := &q.nodes[n]
		l.free = t.Nodes[n].CPUs.Intersect(online)
		l.avail = l.free.Intersect(usable)
		l.open = l.avail
		l.whole = l.avail.Equal(l.free)
		if t.Nodes[n].CPUs.Intersects(usable) {
			q.hosts = append(q.hosts, n)
		}
	}
	q.loadClaims()
	q.findHomes()
	for _, n := range q.hosts {
		q.protect(&q.nodes[n])
	}
	q.countGives()
	q.foresee()
	return q, nil
}

// podUse is what the containers of a pod use of its reservation.
type podUse struct {
	begun bool
	milli int
	bytes int64
}

// loadClaims enters all claims: those of containers as they are, those of
// pods' reservations as far as they exceed the pod's containers. The request's
// own pod's reservation is room for the request.
func (q *search) loadClaims() {
	claims := q.s.Claims
	// More than the machine has is no different, and could not be added up.
	var machine int64
	for n := range q.t.Nodes {
		machine += q.t.Nodes[n].Memory
	}
	memory := func(c *Claim) int64 { return max(min(c.Bytes, machine), 0) }
	milliOf := func(c *Claim) int { return max(min(c.Milli, mostCPUs*milliPerCPU), 0) }
	widthOf := func(c *Claim) int { return max(min(c.Width, mostCPUs), 0) }
	reservations := 0
	for i := range claims {
		if c := &claims[i]; c.Sandbox {
			reservations++
		}
		if c := &claims[i]; c.Pod != "" && c.Pod == q.r.Pod {
			q.peers = q.peers.Union(c.Nodes)
		}
	}
	uses := make([]podUse, 0, reservations)
	pods := make(map[string]int, reservations) // to uses
	which := make([]int, 0, reservations)      // of uses is each reservation's
	for i := range claims {
		if c := &claims[i]; c.Sandbox {
			use, known := pods[c.Pod]
			if !known {
				use = len(uses)
				pods[c.Pod] = use
				uses = append(uses, podUse{})
			}
			which = append(which, use)
		}
	}
	for i := range claims {
		c := &claims[i]
		if c.Sandbox {
			continue
		}
		milli, width := milliOf(c), widthOf(c)
		if use, reserved := pods[c.Pod]; reserved && c.Pod != "" {
			uses[use].begun = true
			uses[use].milli += max(milli, (c.Owned.Len()+c.Idle.Len())*milliPerCPU)
			uses[use].bytes += memory(c)
		}
		q.enter(c, milli, width, memory(c))
	}
	for i := range claims {
		c := &claims[i]
		if !c.Sandbox {
			continue
		}
		use, width := uses[which[0]], widthOf(c)
		which = which[1:]
		if c.Pod != "" && c.Pod == q.r.Pod {
			continue
		}
		if use.begun {
			width = 0
		}
		q.enter(c, max(milliOf(c)-use.milli, 0), width, max(memory(c)-use.bytes, 0))
	}
}

// enter spreads a claim over its nodes, by the number of its CPUs on each.
func (q *search) enter(c *Claim, milli, width int, bytes int64) {
	if c.Nodes.Len() == 1 {
		if n := q.t.index(c.Nodes.Min()); n >= 0 {
			q.enterNode(n, c, milli, width, bytes)
		}
		return
	}
	total := 0
	for n := range q.nodes {
		total += q.weight(c, n)
	}
	if total == 0 {
		return
	}
	for n := range q.nodes {
		if w := q.weight(c, n); w > 0 {
			q.enterNode(n, c, milli*w/total, ceilDiv(width*w, total), bytes*int64(w)/int64(total))
		}
	}
}

func (q *search) weight(c *Claim, n int) int {
	node := &q.t.Nodes[n]
	switch {
	case !c.Nodes.IsEmpty() && !c.Nodes.Contains(node.ID):
		return 0
	case !c.Owned.IsEmpty():
		return c.Owned.Overlap(node.CPUs)
	case c.Granted.IsEmpty():
		return node.CPUs.Len()
	}
	return c.Granted.Overlap(node.CPUs)
}

func (q *search) enterNode(n int, c *Claim, milli, width int, bytes int64) {
	l := &q.nodes[n]
	l.bytes += bytes
	// What is owned is not shared; and a pod's sandbox process does nothing:
	// unlike a container, it needs no CPU where nothing is reserved.
	if !c.Owned.IsEmpty() || c.Sandbox && milli == 0 && width == 0 {
		return
	}
	l.milli += milli
	// A claim that is granted other CPUs than the request weighs on those that
	// both may use only in part.
	mine := milli
	if !l.whole {
		if has := c.Granted.Overlap(l.free); has > 0 {
			mine = milli * c.Granted.Overlap(l.avail) / has
		}
	}
	l.mine += mine
	if q.r.CPU != Dedicated {
		return
	}
	for i := range l.pools {
		if p := &l.pools[i]; p.granted.Equal(c.Granted) {
			p.milli += milli
			p.width = max(p.width, width)
			return
		}
	}
	l.pools = append(l.pools, pool{granted: c.Granted, milli: milli, width: width})
}

// cpus are the CPUs of a node that a pool may run on.
func (l *nodeLoad) cpus(p *pool) cpuset.Set {
	if p.granted.IsEmpty() {
		return l.free
	}
	return p.granted.Intersect(l.free)
}

// protect finds how many CPUs may be owned, and withholds those that a pool
// needs which may not use all of the others. What is withheld for one pool does
// not depend on the others, nor on their order.
func (q *search) protect(l *nodeLoad) {
	l.limit = l.open.Len()
	all := pool{}
	var union cpuset.Set
	for i := range l.pools {
		p := &l.pools[i]
		cpus := l.cpus(p)
		union = union.Union(cpus)
		all.milli += p.milli
		all.width = max(all.width, p.width)
		if l.avail.IsSubset(cpus) {
			l.limit = min(l.limit, cpus.Len()-p.need())
			continue
		}
		common := cpus.Intersect(l.avail)
		for keep := p.need() - (cpus.Len() - common.Len()); keep > 0 && !common.IsEmpty(); keep-- {
			last := cpuset.Of(common.Max())
			common, l.open = common.Difference(last), l.open.Difference(last)
		}
	}
	if len(l.pools) > 1 && union.Intersects(l.avail) {
		l.limit = min(l.limit, union.Len()-all.need())
	}
	l.limit = max(min(l.limit, l.open.Len()), 0)
}

// leaves reports whether the pools of a node keep what they need when cpus are
// taken away, unless they had too little before.
func (l *nodeLoad) leaves(cpus cpuset.Set) bool {
	all := pool{}
	var union cpuset.Set
	for i := range l.pools {
		p := &l.pools[i]
		has := l.cpus(p)
		if has.Overlap(cpus) > 0 && has.Len()-has.Overlap(cpus) < p.need() {
			return false
		}
		union = union.Union(has)
		all.milli += p.milli
		all.width = max(all.width, p.width)
	}
	return len(l.pools) == 0 || union.Overlap(cpus) == 0 || union.Len()-union.Overlap(cpus) >= all.need()
}

// index returns the index of the node with an ID, or -1.
func (t *Topology) index(id int) int {
	if 0 <= id && id < len(t.Nodes) && t.Nodes[id].ID == id {
		return id
	}
	for n := range t.Nodes {
		if t.Nodes[n].ID == id {
			return n
		}
	}
	return -1
}
