package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/machines"
)

// options are what a run can be told.
type options struct {
	arrivals, seeds int
	check           bool
}

// fixtures are the machines that are played on.
func fixtures() []string {
	return []string{"r5.metal", "graviton4.metal-48xl", "xeon-snc2", "epyc-nps4", "epyc-l3-as-numa", "m7a.24xlarge"}
}

// loads are offered, as parts of the machine.
func loads() []float64 { return []float64{0.6, 0.95} }

func main() {
	var o options
	flag.IntVar(&o.arrivals, "arrivals", 6000, "containers that arrive in a run")
	flag.IntVar(&o.seeds, "seeds", 3, "runs of each kind, with seeds from 1 on")
	flag.BoolVar(&o.check, "check", false, "fail if a promise is not kept")
	flag.Parse()
	if err := bench(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-placement:", err)
		os.Exit(1)
	}
}

func bench(o options) error {
	// Times are those of a thread.
	runtime.LockOSThread()
	var all []result
	for _, name := range fixtures() {
		t, err := machine(name)
		if err != nil {
			return err
		}
		for _, m := range mixes() {
			for _, load := range loads() {
				all = append(all, compare(t, name, m, load, o)...)
			}
		}
	}
	printTables(all, o)
	if kept := verdicts(all); o.check && !kept {
		return errors.New("not all promises are kept")
	}
	return nil
}

func machine(name string) (*numa.Topology, error) {
	fsys, err := machines.Open(name)
	if err != nil {
		return nil, err
	}
	return numa.Discover(fsys)
}

// result is what came of a way on a machine with a mix and a load.
type result struct {
	machine string
	t       *numa.Topology
	mix     string
	load    float64
	way     string
	score
}

// The titles of the ways that verdicts are about.
const (
	titleOurs     = "numa"
	titleRequire  = "numa, require"
	titleIsolate  = "numa, isolate"
	titleBestFit  = "best-fit"
	titleWorstFit = "worst-fit"
)

// ways are those that are compared, beginning anew.
func ways(seed uint64) []way {
	return []way{
		&ours{title: titleOurs},
		&ours{title: titleRequire, thread: numa.RequireCores},
		&ours{title: titleIsolate, thread: numa.IsolateThreads},
		&kubelet{},
		&kubelet{hints: true},
		&byNode{title: titleBestFit, order: func(a, b int) int { return a - b }},
		&byNode{title: titleWorstFit, order: func(a, b int) int { return b - a }},
		&random{r: rand.New(rand.NewPCG(seed, 1))},
	}
}

// compare plays the same arrivals for each way.
func compare(t *numa.Topology, name string, m mix, load float64, o options) []result {
	var results []result
	for seed := range uint64(o.seeds) {
		arrivals := m.arrivals(t, load, o.arrivals, seed+1)
		for i, w := range ways(seed + 1) {
			if seed == 0 {
				results = append(results, result{machine: name, t: t, mix: m.name, load: load, way: w.name()})
			}
			results[i].add(run(newBoard(t), w, arrivals))
		}
	}
	return results
}
