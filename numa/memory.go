package numa

import "containerd-shim-numa-v1/numa/cpuset"

// findHomes finds for each node with CPUs where its memory comes from: itself,
// or the closest node with memory that the request may use.
func (q *search) findHomes() {
	known := false
	for n := range q.t.Nodes {
		known = known || q.t.Nodes[n].Memory > 0
	}
	for _, n := range q.hosts {
		home := -1
		for m := range q.t.Nodes {
			if known && q.t.Nodes[m].Memory == 0 || !q.grantsMems(m) {
				continue
			}
			if home < 0 || q.closer(n, m, home) {
				home = m
			}
		}
		q.nodes[n].home = home
	}
}

func (q *search) grantsMems(m int) bool {
	return q.r.Mems.IsEmpty() || q.r.Mems.Contains(q.t.Nodes[m].ID)
}

// closer reports whether memory of a is better for the CPUs of node n than
// that of b. Memory that is not for everybody comes last.
func (q *search) closer(n, a, b int) bool {
	if a == n || b == n {
		return a == n
	}
	if q.t.Nodes[a].Default != q.t.Nodes[b].Default {
		return q.t.Nodes[a].Default
	}
	return q.distance(n, a) < q.distance(n, b)
}

// distance is that of two nodes by index, acpiRemote where the topology has none.
func (q *search) distance(a, b int) int {
	if d := q.t.Nodes[a].Distance; b < len(d) {
		return d[b]
	}
	return acpiRemote
}

// homes are the nodes whose memory the CPUs of a set of nodes use, by index,
// in the room of buf.
func (q *search) homes(set, buf []int) []int {
	buf = buf[:0]
next:
	for _, n := range set {
		home := q.nodes[n].home
		if home < 0 {
			continue
		}
		for _, m := range buf {
			if m == home {
				continue next
			}
		}
		buf = append(buf, home)
	}
	return buf
}

// memoryFits reports whether the memory that is asked for fits in the homes of
// a set, by what claims expect to use and, if bound, by what is free.
func (q *search) memoryFits(set []int, bound bool) bool {
	if q.r.Bytes == 0 {
		return true
	}
	var buf [16]int
	room := int64(0)
	for _, m := range q.homes(set, buf[:]) {
		if q.t.Nodes[m].Memory == 0 {
			return true // not known
		}
		left := q.t.Nodes[m].Memory - q.nodes[m].bytes
		if bound && m < len(q.s.FreeBytes) {
			left = min(left, q.s.FreeBytes[m])
		}
		room += max(left, 0)
	}
	return room >= q.r.Bytes
}

// hugepagesFit does so for the pages of each size.
func (q *search) hugepagesFit(set []int) bool {
	var buf [16]int
	for size, bytes := range q.r.Hugepages {
		free, known := q.s.FreeHugepages[size]
		if !known {
			continue
		}
		for _, m := range q.homes(set, buf[:]) {
			if m < len(free) {
				bytes -= free[m]
			}
		}
		if bytes > 0 {
			return false
		}
	}
	return true
}

// memoryCost counts what is wrong with the memory of a set: too little, too
// few huge pages, CPUs without memory of their own.
func (q *search) memoryCost(set []int) (cost int) {
	if !q.memoryFits(set, false) {
		cost++
	}
	if !q.hugepagesFit(set) {
		cost++
	}
	for _, n := range set {
		if q.nodes[n].home != n {
			cost++
		}
	}
	return cost
}

// bound reports whether memory must come from the chosen nodes alone.
func (q *search) bound() bool { return q.r.Memory == BindMemory && !q.given.memory }

// mems are the memory nodes of a placement.
func (q *search) mems(set []int) cpuset.Set {
	if q.r.Memory == LocalMemory || q.given.memory {
		return cpuset.Set{}
	}
	var buf [16]int
	return q.ids(q.homes(set, buf[:]))
}

// ids are the IDs of nodes.
func (q *search) ids(set []int) cpuset.Set {
	return cpuset.Collect(func(yield func(int) bool) {
		for _, n := range set {
			if !yield(q.t.Nodes[n].ID) {
				return
			}
		}
	})
}
