package main

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// way chooses CPUs for containers.
type way interface {
	name() string
	// place chooses n CPUs for a container; there are as many free ones. The
	// empty set turns the container away.
	place(b *board, n int) (owned, idle cpuset.Set)
	// left tells of the departure of a container that had owned.
	left(owned cpuset.Set)
}

// stateless is a way that remembers nothing.
type stateless struct{}

func (stateless) left(cpuset.Set) {}

// ours is package numa.
type ours struct {
	title  string
	thread numa.ThreadPolicy
	claims []numa.Claim
	demand numa.Demand
	// took is how long the last decision took.
	took time.Duration
}

// repeats is how often a decision is asked for. The fastest answer counts:
// what else the machine did meanwhile is no part of it.
const repeats = 3

// cpuTime is the CPU time of this thread.
func cpuTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err) // there is no Linux without it
	}
	return time.Duration(ts.Nano())
}

func (o *ours) name() string { return o.title }

func (o *ours) request(b *board, n int) numa.Request {
	return numa.Request{CPU: numa.Dedicated, Thread: o.thread, Width: n, Milli: n * 1000, Granted: b.t.Online}
}

func (o *ours) place(b *board, n int) (owned, idle cpuset.Set) {
	r := o.request(b, n)
	var p numa.Placement
	var err error
	for i := range repeats {
		begin := cpuTime()
		p, err = b.t.Place(numa.State{Claims: o.claims, Demand: o.demand}, r)
		if took := cpuTime() - begin; i == 0 || took < o.took {
			o.took = took
		}
	}
	if err != nil || p.Owned.IsEmpty() {
		return
	}
	c := numa.Claim{Milli: r.Milli, Width: n, Nodes: p.Nodes, Owned: p.Owned, Idle: p.Idle, Granted: r.Granted}
	o.claims = append(o.claims, c)
	o.demand = o.demand.Add(c)
	return p.Owned, p.Idle
}

func (o *ours) left(owned cpuset.Set) {
	o.claims = slices.DeleteFunc(o.claims, func(c numa.Claim) bool { return c.Owned.Equal(owned) })
}

// byNode takes one node where one fits, the one with the fewest (best-fit) or
// the most (worst-fit) free CPUs, and else the emptiest nodes.
type byNode struct {
	stateless
	title string
	order func(freeA, freeB int) int
}

func (w *byNode) name() string { return w.title }

func (w *byNode) place(b *board, n int) (owned, idle cpuset.Set) {
	best := -1
	for _, node := range b.hosts {
		if f := b.freeOn(node); f >= n && (best < 0 || w.order(f, b.freeOn(best)) < 0) {
			best = node
		}
	}
	if best >= 0 {
		return b.pack([]int{best}, n), idle
	}
	nodes := slices.Clone(b.hosts)
	slices.SortStableFunc(nodes, func(x, y int) int { return b.freeOn(y) - b.freeOn(x) })
	return b.pack(nodes, n), idle
}

// pack takes n free CPUs of nodes, one after the other: whole cores by number,
// then halves of cores that are in use.
func (b *board) pack(nodes []int, n int) cpuset.Set {
	var got []int
	for _, node := range nodes {
		var cores []int
		for i, c := range b.t.Cores {
			if c.Node == node && b.free(c.CPUs) > 0 {
				cores = append(cores, i)
			}
		}
		for _, i := range cores {
			if cpus := b.t.Cores[i].CPUs; b.free(cpus) == cpus.Len() && cpus.Len() <= n-len(got) {
				got = slices.AppendSeq(got, cpus.All())
			}
		}
		slices.SortStableFunc(cores, func(x, y int) int { return b.free(b.t.Cores[x].CPUs) - b.free(b.t.Cores[y].CPUs) })
		for _, i := range cores {
			for cpu := range b.t.Cores[i].CPUs.All() {
				if len(got) < n && b.owner[cpu] == free && !slices.Contains(got, cpu) {
					got = append(got, cpu)
				}
			}
		}
	}
	return cpuset.Of(got...)
}

// kubelet is the static CPU manager as of Kubernetes 1.37 with its default
// options. Without a hint it takes whole packages and nodes where the request
// is that large, then whole cores and then threads, from the package, node and
// core with the fewest free CPUs on, without asking whether the request fits
// there. With the Topology Manager's best-effort policy the fewest nodes that
// suffice, of the lowest numbers, come first.
type kubelet struct {
	stateless
	hints bool
}

func (k *kubelet) name() string {
	if k.hints {
		return "kubelet, best-effort hints"
	}
	return "kubelet, no hints"
}

func (k *kubelet) place(b *board, n int) (owned, idle cpuset.Set) {
	nodes := b.hosts
	if k.hints {
		nodes = b.hint(n)
	}
	var got []int
	taken := func(cpu int) bool { return b.owner[cpu] != free || slices.Contains(got, cpu) }
	left := func(cpus cpuset.Set) (m int) {
		for cpu := range cpus.All() {
			if !taken(cpu) {
				m++
			}
		}
		return m
	}
	whole := func(sets []cpuset.Set) {
		for _, cpus := range ascending(sets, left) {
			if size := cpus.Len(); left(cpus) == size && size <= n-len(got) {
				got = slices.AppendSeq(got, cpus.All())
			}
		}
	}
	packages, perNode, cores := b.levels(nodes, left)
	whole(packages)
	whole(perNode)
	for _, c := range cores() {
		if left(c) == c.Len() && c.Len() <= n-len(got) {
			got = slices.AppendSeq(got, c.All())
		}
	}
	for _, c := range cores() {
		for cpu := range c.All() {
			if len(got) < n && !taken(cpu) {
				got = append(got, cpu)
			}
		}
	}
	return cpuset.Of(got...), idle
}

// levels are the packages and the nodes, and a function for the cores in the
// order in which they are looked at: by package, node and core, each with the
// fewest free CPUs first.
func (b *board) levels(nodes []int, left func(cpuset.Set) int) (packages, perNode []cpuset.Set, cores func() []cpuset.Set) {
	byPackage := map[int][]cpuset.Set{}
	var order []int
	for _, n := range nodes {
		node := b.t.Nodes[n]
		if byPackage[node.Package] == nil {
			order = append(order, node.Package)
		}
		byPackage[node.Package] = append(byPackage[node.Package], node.CPUs)
		perNode = append(perNode, node.CPUs)
	}
	for _, p := range order {
		var all cpuset.Set
		for _, cpus := range byPackage[p] {
			all = all.Union(cpus)
		}
		packages = append(packages, all)
	}
	return packages, perNode, func() (list []cpuset.Set) {
		for _, p := range ascending(packages, left) {
			for _, node := range ascending(perNode, left) {
				if !node.IsSubset(p) {
					continue
				}
				var own []cpuset.Set
				for _, c := range b.t.Cores {
					if c.CPUs.IsSubset(node) {
						own = append(own, c.CPUs)
					}
				}
				list = append(list, ascending(own, left)...)
			}
		}
		return list
	}
}

// ascending are the sets with something left, the fewest first.
func ascending(sets []cpuset.Set, left func(cpuset.Set) int) []cpuset.Set {
	type counted struct {
		cpus cpuset.Set
		left int
	}
	var list []counted
	for _, s := range sets {
		if n := left(s); n > 0 {
			list = append(list, counted{s, n})
		}
	}
	slices.SortStableFunc(list, func(a, b counted) int { return cmp.Compare(a.left, b.left) })
	sorted := make([]cpuset.Set, len(list))
	for i, c := range list {
		sorted[i] = c.cpus
	}
	return sorted
}

// hint is the smallest set of nodes with n free CPUs, of the lowest numbers.
func (b *board) hint(n int) []int {
	for k := 1; k <= len(b.hosts); k++ {
		if set := b.combination(nil, 0, k, n); set != nil {
			return set
		}
	}
	return b.hosts
}

func (b *board) combination(set []int, from, k, n int) []int {
	if k == 0 {
		for _, node := range set {
			n -= b.freeOn(node)
		}
		if n <= 0 {
			return set
		}
		return nil
	}
	for i := from; i < len(b.hosts); i++ {
		if found := b.combination(append(slices.Clone(set), b.hosts[i]), i+1, k-1, n); found != nil {
			return found
		}
	}
	return nil
}

// random draws CPUs.
type random struct {
	stateless
	r *rand.Rand
}

func (w *random) name() string { return "random CPUs" }

func (w *random) place(b *board, n int) (owned, idle cpuset.Set) {
	var all []int
	for cpu := range b.t.Online.All() {
		if b.owner[cpu] == free {
			all = append(all, cpu)
		}
	}
	w.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return cpuset.Of(all[:n]...), idle
}
