package numa

import (
	"fmt"
	"strconv"
	"strings"
)

// asked says what a request asks for.
func (q *search) asked() string {
	var b strings.Builder
	switch {
	case q.r.CPU == Dedicated:
		fmt.Fprintf(&b, "%s", plural(q.r.Width, "dedicated CPU"))
		switch q.r.Thread {
		case RequireCores:
			b.WriteString(" in whole cores")
		case IsolateThreads:
			b.WriteString(" on a core each")
		}
	default:
		fmt.Fprintf(&b, "%s of CPU, at least %s wide", cpus(q.r.Milli), plural(q.width, "CPU"))
	}
	if q.r.CPU == Dedicated && q.r.Cache == RequireCache {
		b.WriteString(" in one cache")
	}
	if q.r.Memory == BindMemory && q.r.Bytes > 0 {
		fmt.Fprintf(&b, " with %s of memory", mebibytes(q.r.Bytes))
	}
	switch q.r.Policy {
	case SingleNode:
		b.WriteString(" on one node")
	case Restricted:
		fmt.Fprintf(&b, " on at most %s", plural(q.fewest(), "node"))
	}
	return b.String()
}

// refusal says what each option lacks.
func (q *search) refusal(options []option) string {
	var list []string
	for i := range options[:min(len(options), MaxCandidates)] {
		list = append(list, q.where(&options[i])+" has "+q.lackText(&options[i]))
	}
	if more := len(options) - len(list); more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, "; ")
}

func (q *search) where(o *option) string {
	if len(o.set) == 1 {
		return "node " + strconv.Itoa(q.t.Nodes[o.set[0]].ID)
	}
	return "nodes " + q.ids(o.set).String()
}

// lackText says what an option has of what it lacks.
func (q *search) lackText(o *option) string {
	gives, total := q.count(o.set)
	switch o.lack {
	case lacksGrant:
		return "no CPU that is granted"
	case lacksRoom:
		return fmt.Sprintf("%s of %d CPUs unclaimed", cpus(q.spare(o.set)), total)
	case lacksMemory:
		return "too little memory"
	case lacksHugepages:
		return "too few huge pages"
	case lacksCache:
		return "no cache with room"
	}
	return q.freeText(gives, total)
}

// count counts the CPUs that a set of nodes has for the request, and how many
// it would have if nobody else were there.
func (q *search) count(set []int) (gives, of int) {
	for _, n := range set {
		gives += q.nodes[n].gives
		of += q.t.Nodes[n].CPUs.Overlap(q.usable)
	}
	return gives, of
}

// freeText says how many CPUs there are for the request.
func (q *search) freeText(gives, of int) string {
	if q.dedicated() {
		switch q.r.Thread {
		case RequireCores:
			return fmt.Sprintf("%d of %d CPUs free in whole cores", gives, of)
		case IsolateThreads:
			return fmt.Sprintf("%s free", plural(gives, "whole core"))
		}
	}
	return fmt.Sprintf("%d of %d CPUs free", gives, of)
}

// reason says why the first option was taken.
func (q *search) reason(options []option) string {
	best := &options[0]
	gives, of := q.count(best.set)
	head := q.where(best) + ": " + q.freeText(gives, of)
	if len(q.hosts) == 1 {
		return head + "; the only node"
	}
	if len(options) == 1 || options[1].lack != nothing {
		return head + "; no other has room"
	}
	return fmt.Sprintf("%s; chosen over %s: %s", head, q.where(&options[1]), q.difference(best, &options[1]))
}

// difference says what decided between two options.
func (q *search) difference(a, b *option) string {
	for term := range terms {
		if a.cost[term] == b.cost[term] {
			continue
		}
		switch term {
		case termMoves:
			return "the container is there"
		case termNodes:
			return "fewer nodes"
		case termDevices:
			return "its devices are there"
		case termMemory:
			return "has the memory"
		case termPeers:
			return "the pod is there"
		case termDistance:
			return "its nodes are closer to each other"
		case termShortage:
			return q.roomText(a, b)
		case termBalance:
			return "less loaded"
		case termCaches:
			return "touches fewer caches"
		case termCores:
			return "shares fewer cores"
		default:
			return "keeps more of its CPUs"
		}
	}
	return "both are alike"
}

// roomText names the requests for which an option leaves more room than
// another.
func (q *search) roomText(a, b *option) string {
	if q.r.Strategy == Pack {
		return "fuller"
	}
	slots := func(o *option, size int) (slots int) {
		var buf [16]int
		loads := q.divide(o.set, buf[:0])
		for i, n := range o.set {
			slots += q.spareCPUs(n, loads[i])/size - q.spareCPUs(n, 0)/size
		}
		return slots
	}
	most, which := 0.0, 0
	for i, table := range q.next.shortage {
		if len(table) == 0 {
			continue
		}
		now := q.next.slots[i]
		lost := func(o *option) float64 {
			return table[0] - at(table, now+slots(o, demandSizes[i]))
		}
		if gain := lost(a) - lost(b); gain > most {
			most, which = gain, demandSizes[i]
		}
	}
	// Without such a size, or where it matters less, it is for the balance.
	if which == 0 || most < balanceWorth*(b.cost[termBalance]-a.cost[termBalance]) {
		return "less loaded"
	}
	return fmt.Sprintf("leaves room for %d-CPU requests", which)
}

// at is an element of a table that ends where nothing is left.
func at(table []float64, i int) float64 {
	if i < len(table) {
		return table[i]
	}
	return 0
}

// missed are the wishes that the chosen option does not meet.
func (q *search) missed(o *option) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if q.given.dedicated {
		say("dedicated CPUs: there are not %d to be had", q.r.Width)
	}
	if q.given.cache && !q.given.dedicated {
		say("one cache: none has room")
	}
	if q.given.memory {
		say("memory bound to nodes: none has room")
	}
	if q.given.owned {
		say("CPUs that nobody owns: there are none")
	} else if spare := q.spare(o.set); !q.dedicated() && spare < q.r.Milli {
		say("%s of CPU: %s are unclaimed", cpus(q.r.Milli), cpus(spare))
	}
	if !q.dedicated() && q.width < q.r.Width {
		say("%s wide: there are %d", plural(q.r.Width, "CPU"), q.width)
	}
	if len(o.set) > 1 && q.fewest() < len(o.set) {
		say("on %s: they have no room", plural(q.fewest(), "node"))
	}
	if o.cost[termDevices] > 0 {
		for _, device := range q.r.Devices {
			if !q.ids(o.set).Contains(device) {
				say("device on node %d", device)
			}
		}
	}
	if o.cost[termPeers] > 0 {
		say("the pod is on node %s", q.peers)
	}
	if o.cost[termMemory] > 0 {
		list = append(list, q.memoryMissed(o)...)
	}
	if o.choice.caches > 0 && q.r.Cache != IgnoreCache {
		say("%s more than necessary", plural(o.choice.caches, "cache"))
	}
	if o.choice.shared > 0 {
		say("shares %s", plural(o.choice.shared, "core"))
	}
	return list
}

func (q *search) memoryMissed(o *option) (list []string) {
	if !q.memoryFits(o.set, false) {
		list = append(list, fmt.Sprintf("%s of memory: %s is claimed beyond it", mebibytes(q.r.Bytes), q.where(o)))
	}
	if !q.hugepagesFit(o.set) {
		list = append(list, "huge pages: too few on "+q.where(o))
	}
	for _, n := range o.set {
		if home := q.nodes[n].home; home < 0 {
			list = append(list, fmt.Sprintf("memory of node %d", q.t.Nodes[n].ID))
		} else if home != n {
			list = append(list, fmt.Sprintf("memory of node %d: that of node %d is used", q.t.Nodes[n].ID, q.t.Nodes[home].ID))
		}
	}
	return list
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// cpus writes thousandths of a CPU as CPUs.
func cpus(milli int) string {
	return strconv.FormatFloat(float64(milli)/milliPerCPU, 'f', -1, 64)
}

// mebibytes writes bytes.
func mebibytes(bytes int64) string {
	return fmt.Sprintf("%d MiB", bytes>>20)
}
