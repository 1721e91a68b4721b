package numa

import (
	"cmp"
	"slices"
)

// The terms of the objective, of [Candidate.Cost], in the order in which they
// are compared.
const (
	// termMoves: nodes that the container was not on before.
	termMoves = iota
	// termNodes: nodes.
	termNodes
	// termDevices: devices that hang on other nodes.
	termDevices
	// termMemory: what is wrong with the memory there.
	termMemory
	// termPeers: nodes on which the pod is not.
	termPeers
	// termDistance: the sum of the distances within the set.
	termDistance
	// termShortage: how much less room there is for the requests to come.
	termShortage
	// termBalance: how uneven the nodes' load becomes.
	termBalance
	// termCaches: caches beyond the fewest that could do.
	termCaches
	// termCores: cores shared with others.
	termCores
	// termChurn: previous CPUs that are lost.
	termChurn
	terms
)

// option is a set of nodes that is weighed.
type option struct {
	set    []int
	lack   lack
	cost   [terms]float64
	choice choice
}

// weigh fills in the cost of an option that lacks nothing.
func (q *search) weigh(o *option) {
	if q.dedicated() && (q.r.Cache == RequireCache && !q.given.cache || len(o.set) == 1) {
		if !q.inspect(o) {
			return
		}
	}
	c := &o.cost
	c[termNodes] = float64(len(o.set))
	for _, n := range o.set {
		id := q.t.Nodes[n].ID
		if !q.r.PreviousNodes.IsEmpty() && !q.r.PreviousNodes.Contains(id) {
			c[termMoves]++
		}
		if !q.peers.IsEmpty() && !q.peers.Contains(id) {
			c[termPeers]++
		}
		for _, m := range o.set {
			if m > n {
				c[termDistance] += float64(q.distance(n, m))
			}
		}
	}
	for _, device := range q.r.Devices {
		if !slices.ContainsFunc(o.set, func(n int) bool { return q.t.Nodes[n].ID == device }) {
			c[termDevices]++
		}
	}
	c[termMemory] = float64(q.memoryCost(o.set))
	c[termShortage], c[termBalance] = q.future(o.set)
}

// inspect chooses the CPUs of a dedicated option and weighs them. It reports
// false if they cannot be chosen.
func (q *search) inspect(o *option) bool {
	choice, ok := q.choose(o.set, true)
	require := q.r.Cache == RequireCache && !q.given.cache
	if !ok || require && q.caches(o.set) > 1 {
		choice, ok = q.choose(o.set, false)
	}
	if !ok {
		o.lack = lacksCPUs
		return false
	}
	if require && q.caches(o.set) > 1 {
		o.lack = lacksCache
		return false
	}
	o.choice = choice
	if q.r.Cache != IgnoreCache {
		o.cost[termCaches] = float64(choice.caches)
	}
	o.cost[termCores] = float64(choice.shared)
	o.cost[termChurn] = float64(choice.moved)
	return true
}

func (q *search) compare(a, b *option) int {
	return cmp.Or(
		cmp.Compare(min(a.lack, 1), min(b.lack, 1)),
		slices.Compare(a.cost[:], b.cost[:]),
		slices.Compare(a.set, b.set),
	)
}

// balanceWorth is how much expected shortage a lower mean square of the nodes'
// load is worth: the most that keeps the forced splits within about half a point
// of best-fit's in the simulation (docs/placement.md).
const balanceWorth = 1.0

// spareCPUs are the CPUs of a node that would be left to anybody, with more
// milli in use.
func (q *search) spareCPUs(n, milli int) int {
	l := &q.nodes[n]
	return max(l.free.Len()*milliPerCPU-l.milli-milli, 0) / milliPerCPU
}

// foresee prepares what future asks.
func (q *search) foresee() {
	q.next = q.s.Demand.lookAhead(len(q.hosts))
	for _, n := range q.hosts {
		q.next.add(q.spareCPUs(n, 0), 1)
	}
}

// future weighs the machine as it is with the request on a set of nodes. The
// balance is the mean square of the nodes' load. The shortage is that of the
// next requests, and the balance at what it is worth; with Pack it is the room
// that is left beside the request, with Spread nothing.
func (q *search) future(set []int) (shortage, balance float64) {
	var buf [16]int
	loads := q.divide(set, buf[:0])
	for _, n := range q.hosts {
		l := &q.nodes[n]
		size := q.t.Nodes[n].CPUs.Len() * milliPerCPU
		load := size - l.free.Len()*milliPerCPU + l.milli
		if i := slices.Index(set, n); i >= 0 {
			load += loads[i]
		}
		u := float64(load) / float64(size)
		balance += u * u
	}
	balance /= float64(len(q.hosts))
	switch q.r.Strategy {
	case Pack:
		for i, n := range set {
			shortage += float64(q.spareCPUs(n, loads[i]))
		}
	case Adaptive:
		slots := q.next.slots
		for i, n := range set {
			q.next.add(q.spareCPUs(n, 0), -1)
			q.next.add(q.spareCPUs(n, loads[i]), 1)
		}
		shortage = q.next.expected() + balanceWorth*balance
		q.next.slots = slots
	}
	return shortage, balance
}

// divide says how much of the request each node of a set bears.
func (q *search) divide(set, loads []int) []int {
	left := q.width
	total := 0
	for _, n := range set {
		total += q.nodes[n].gives
	}
	for _, n := range set {
		gives := q.nodes[n].gives
		switch {
		case !q.dedicated():
			loads = append(loads, q.r.Milli*gives/max(total, 1))
			continue
		case q.r.Thread == IsolateThreads:
			loads = append(loads, min(left, gives)*q.t.ThreadsPerCore*milliPerCPU)
		case q.r.Thread == RequireCores:
			cores := ceilDiv(min(left, gives), q.t.ThreadsPerCore)
			loads = append(loads, cores*q.t.ThreadsPerCore*milliPerCPU)
		default:
			loads = append(loads, min(left, gives)*milliPerCPU)
		}
		left -= min(left, gives)
	}
	return loads
}
