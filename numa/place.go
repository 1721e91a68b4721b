package numa

import (
	"errors"
	"fmt"
	"slices"
)

// ErrRefused is wrapped by the error of [Topology.Place] when the request's
// policy does not accept any placement that there is.
var ErrRefused = errors.New("placement refused")

// Place chooses where to put a request. The error wraps [ErrRefused], or says
// that no CPU that the request is granted is online.
//
// One node is taken where one has room, and else the smallest set of close
// nodes that is found. Among those the terms of the objective decide, each only
// where all before it are equal, and at last the lowest number.
func (t *Topology) Place(s State, r Request) (Placement, error) {
	q, err := t.newSearch(s, r)
	if err != nil {
		return Placement{}, err
	}
	if r.Policy == Unplaced {
		return q.unplaced(), nil
	}
	for {
		options := q.options()
		for len(options) > 0 && options[0].lack == nothing {
			best := &options[0]
			// Sets of several nodes are only looked into when one is taken.
			if !q.dedicated() || q.inspect(best) {
				return q.placement(options), nil
			}
			slices.SortFunc(options, func(a, b option) int { return q.compare(&a, &b) })
		}
		if r.Policy != BestEffort || !q.relax() {
			return Placement{}, fmt.Errorf("place %s: %s: %w", q.asked(), q.refusal(options), ErrRefused)
		}
	}
}

// options are the sets of nodes that are weighed, best first. There are sets of
// several nodes only where no single one fits and the policy accepts them, or
// where the container was on several before.
func (q *search) options() []option {
	options := make([]option, 0, len(q.hosts))
	sets := make([]int, len(q.hosts))
	copy(sets, q.hosts)
	fits := false
	for i := range sets {
		o := option{set: sets[i : i+1 : i+1]}
		if o.lack = q.lacks(o.set); o.lack == nothing {
			q.weigh(&o)
		}
		fits = fits || o.lack == nothing
		options = append(options, o)
	}
	if most := q.mostNodes(); most > 1 && (!fits || q.r.PreviousNodes.Len() > 1) {
		for _, set := range q.sets() {
			if len(set) <= most {
				o := option{set: set}
				q.weigh(&o)
				options = append(options, o)
			}
		}
	}
	slices.SortFunc(options, func(a, b option) int { return q.compare(&a, &b) })
	return options
}

// mostNodes is how many nodes the policy lets the request be spread over.
func (q *search) mostNodes() int {
	switch q.r.Policy {
	case SingleNode:
		return 1
	case Restricted:
		return q.fewest()
	}
	return len(q.hosts)
}

// unplaced is the placement of a container that is left alone.
func (q *search) unplaced() Placement {
	p := Placement{CPUs: q.r.Granted.Intersect(q.t.Online), Reason: "left alone"}
	if q.r.CPU == Dedicated {
		p.Owned = p.CPUs
	}
	return p
}

// placement is the first of the options, whose CPUs are chosen on the board.
func (q *search) placement(options []option) Placement {
	best := &options[0]
	p := Placement{Nodes: q.ids(best.set), Mems: q.mems(best.set)}
	if q.dedicated() {
		p.Owned, p.Idle = q.chosen(best.set)
		p.CPUs = p.Owned
	} else {
		for _, n := range best.set {
			p.CPUs = p.CPUs.Union(q.nodes[n].avail)
		}
	}
	p.Reason = q.reason(options)
	p.Missed = q.missed(best)
	p.Candidates = q.candidates(options)
	return p
}

func (q *search) candidates(options []option) []Candidate {
	n := min(len(options), MaxCandidates)
	list := make([]Candidate, n)
	costs := make([]float64, 0, n*terms)
	for i := range list {
		o := &options[i]
		list[i].Nodes = q.ids(o.set)
		if o.lack != nothing {
			list[i].Rejected = q.lackText(o)
			continue
		}
		costs = append(costs, o.cost[:]...)
		list[i].Cost = costs[len(costs)-terms : len(costs) : len(costs)]
	}
	return list
}
