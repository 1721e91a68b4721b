package main

import (
	"math"
	"math/rand/v2"

	"containerd-shim-numa-v1/numa"
)

// mix is a histogram of sizes in CPUs.
type mix struct {
	name string
	// sizes and weights go together; the weights need not add up to 1.
	sizes   []float64
	weights []float64
	// relative tells that sizes are parts of the machine's largest node.
	relative bool
}

func mixes() []mix {
	return []mix{
		{
			// Invented: what small services ask for.
			name:    "micro",
			sizes:   []float64{1, 2, 4, 8, 16, 24},
			weights: []float64{30, 30, 22, 12, 5, 1},
		},
		{
			// The ten most frequent CPU requests of openb_pod_list_default.csv,
			// 81 % of its pods, in per cent: derived from Alibaba's
			// cluster-trace-gpu-v2023 (github.com/alibaba/clusterdata). Whole
			// CPUs are given, so sizes are rounded up.
			name:    "openb",
			sizes:   []float64{3.152, 11.3, 8, 11.908, 4, 11.4, 12.5, 12, 32, 18.7},
			weights: []float64{19.5, 10.7, 10.3, 9.5, 8.2, 7.5, 4.5, 4.1, 3.6, 3.1},
		},
		{
			// Invented: containers of the order of a node.
			name:     "large",
			sizes:    []float64{0.25, 0.5, 0.75, 1},
			weights:  []float64{30, 40, 20, 10},
			relative: true,
		},
	}
}

// on returns the sizes of a mix on a machine, in whole CPUs.
func (m mix) on(t *numa.Topology) []int {
	largest := 0
	for i := range t.Nodes {
		largest = max(largest, t.Nodes[i].CPUs.Len())
	}
	sizes := make([]int, len(m.sizes))
	for i, s := range m.sizes {
		if m.relative {
			s *= float64(largest)
		}
		sizes[i] = max(int(math.Ceil(s)), 1)
	}
	return sizes
}

// arrival is a container that arrives.
type arrival struct {
	at, leaves float64
	cpus       int
}

// sigma is that of the logarithm of a container's lifetime, whose mean is 1:
// most live briefly, some for very long.
const sigma = 1.5

// arrivals draws n containers that offer a load, as a part of the machine.
func (m mix) arrivals(t *numa.Topology, load float64, n int, seed uint64) []arrival {
	r := rand.New(rand.NewPCG(seed, 0))
	sizes := m.on(t)
	total, mean := 0.0, 0.0
	for i, w := range m.weights {
		total += w
		mean += w * float64(sizes[i])
	}
	mean /= total
	rate := load * float64(t.Online.Len()) / mean
	list := make([]arrival, n)
	now := 0.0
	for i := range list {
		now += r.ExpFloat64() / rate
		life := math.Exp(r.NormFloat64()*sigma - sigma*sigma/2)
		x, k := r.Float64()*total, 0
		for k < len(sizes)-1 && x >= m.weights[k] {
			x -= m.weights[k]
			k++
		}
		list[i] = arrival{now, now + life, sizes[k]}
	}
	return list
}
