package main

import (
	"slices"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// board is a machine and whose each CPU is.
type board struct {
	t *numa.Topology
	// nodeOf, coreOf and cacheOf go by CPU.
	nodeOf, coreOf, cacheOf []int
	// owner is the number of the container that owns a CPU, or free.
	owner []int
	// hosts are the nodes with CPUs.
	hosts []int
}

const free = -1

func newBoard(t *numa.Topology) *board {
	n := t.Online.Max() + 1
	b := &board{t: t, nodeOf: make([]int, n), coreOf: make([]int, n), cacheOf: make([]int, n), owner: make([]int, n)}
	for i, c := range t.Cores {
		for cpu := range c.CPUs.All() {
			b.nodeOf[cpu], b.coreOf[cpu], b.cacheOf[cpu] = c.Node, i, c.Cache
			b.owner[cpu] = free
		}
	}
	for i := range t.Nodes {
		if !t.Nodes[i].CPUs.IsEmpty() {
			b.hosts = append(b.hosts, i)
		}
	}
	return b
}

func (b *board) free(cpus cpuset.Set) (n int) {
	for cpu := range cpus.All() {
		if b.owner[cpu] == free {
			n++
		}
	}
	return n
}

func (b *board) freeOn(node int) int { return b.free(b.t.Nodes[node].CPUs) }

// touched counts what distinct values of of the CPUs have.
func touched(cpus cpuset.Set, of []int) int {
	var seen []int
	for cpu := range cpus.All() {
		if !slices.Contains(seen, of[cpu]) {
			seen = append(seen, of[cpu])
		}
	}
	return len(seen)
}

// imbalance is the difference between the most and the least used node, as
// parts of their CPUs.
func (b *board) imbalance() float64 {
	low, high := 1.0, 0.0
	for _, n := range b.hosts {
		size := b.t.Nodes[n].CPUs.Len()
		used := float64(size-b.freeOn(n)) / float64(size)
		low, high = min(low, used), max(high, used)
	}
	return high - low
}

// sharedCores counts cores with CPUs of more than one container.
func (b *board) sharedCores() (n int) {
	for i := range b.t.Cores {
		first := free
		for cpu := range b.t.Cores[i].CPUs.All() {
			switch o := b.owner[cpu]; {
			case o == free || o == first:
			case first == free:
				first = o
			default:
				n++
			}
		}
	}
	return n
}
