package vm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Topology is the guest's processors and memory. The zero value is one CPU and
// one node.
//
// CPUs are numbered as the levels nest: with two threads per core, 0 and 1 are
// siblings; the first socket has the lower half.
type Topology struct {
	Sockets, Cores, Threads int // sockets, cores per socket, threads per core; 0 is 1

	// Nodes are the NUMA nodes, node 0 first. None: as many as sockets, one
	// for each, with equal parts of the memory.
	Nodes []Node
	// Distances[i][j] is the distance from node i to j, in the units of ACPI's
	// SLIT, where a node is 10 from itself. nil: 20 between any two.
	Distances [][]int
}

// Node is one NUMA node.
type Node struct {
	CPUs   string // in the kernel's list format, "0-3,8"; "" for a node of memory only
	Memory int    // MiB, at least 1: QEMU has no node without memory here
}

// TwoNodes is two sockets of two cores of two threads, a node for each: the
// smallest machine on which placement has something to decide.
var TwoNodes = Topology{Sockets: 2, Cores: 2, Threads: 2, Distances: [][]int{{10, 21}, {21, 10}}}

// withDefaults fills in what is zero. memory is the guest's, in MiB.
func (t Topology) withDefaults(memory int) Topology {
	t.Sockets, t.Cores, t.Threads = max(t.Sockets, 1), max(t.Cores, 1), max(t.Threads, 1)
	if t.Nodes == nil {
		each := t.Cores * t.Threads
		for s := range t.Sockets {
			t.Nodes = append(t.Nodes, Node{fmt.Sprintf("%d-%d", s*each, (s+1)*each-1), memory / t.Sockets})
		}
	}
	return t
}

// arguments are QEMU's for the topology, memory's size included.
func (t Topology) arguments() ([]string, error) {
	cpus := t.Sockets * t.Cores * t.Threads
	args := []string{"-smp", fmt.Sprintf("%d,sockets=%d,cores=%d,threads=%d", cpus, t.Sockets, t.Cores, t.Threads)}
	total := 0
	for i, n := range t.Nodes {
		if n.Memory < 1 {
			return nil, fmt.Errorf("node %d has no memory", i)
		}
		total += n.Memory
		node := fmt.Sprintf("node,nodeid=%d,memdev=m%d", i, i)
		for part := range strings.SplitSeq(n.CPUs, ",") {
			if part != "" {
				node += ",cpus=" + part
			}
		}
		args = append(args, "-object", fmt.Sprintf("memory-backend-ram,id=m%d,size=%dM", i, n.Memory), "-numa", node)
	}
	if t.Distances != nil && (len(t.Distances) != len(t.Nodes) || slices.ContainsFunc(t.Distances, func(row []int) bool { return len(row) != len(t.Nodes) })) {
		return nil, errors.New("distances are not a square of the nodes")
	}
	for i, row := range t.Distances {
		for j, d := range row {
			args = append(args, "-numa", fmt.Sprintf("dist,src=%d,dst=%d,val=%d", i, j, d))
		}
	}
	return append(args, "-m", fmt.Sprintf("%dM", total)), nil
}
