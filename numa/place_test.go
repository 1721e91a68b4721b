package numa_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/numa/machines"
)

// machine is the topology of a fixture.
func machine(t testing.TB, name string) *numa.Topology {
	t.Helper()
	fsys, err := machines.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	topology, err := numa.Discover(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return topology
}

func set(t testing.TB, list string) cpuset.Set {
	t.Helper()
	s, err := cpuset.Parse(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// build makes a machine of nodes with cores of the given threads, numbered as
// Linux does on x86: the first threads of all cores, then the second ones. Each
// node is a cache, a package and 1 GiB of memory.
func build(nodes, cores, threads int) *numa.Topology {
	t := &numa.Topology{ThreadsPerCore: threads, Online: cpuset.Range(0, nodes*cores*threads-1)}
	for n := range nodes {
		node := numa.Node{ID: n, Package: n, Memory: 1 << 30, Default: true}
		for m := range nodes {
			distance := 10
			if m != n {
				distance = 20 + max(m-n, n-m)
			}
			node.Distance = append(node.Distance, distance)
		}
		for c := range cores {
			var cpus cpuset.Set
			for i := range threads {
				cpus = cpus.Union(cpuset.Of(i*nodes*cores + n*cores + c))
			}
			node.CPUs = node.CPUs.Union(cpus)
			t.Cores = append(t.Cores, numa.Core{CPUs: cpus, Node: n, Cache: n, Package: n})
		}
		t.Nodes = append(t.Nodes, node)
		t.Caches = append(t.Caches, numa.Cache{CPUs: node.CPUs, Node: n})
	}
	return t
}

// shared is a claim of a share of a node's CPUs, owned one of CPUs.
func shared(node, milli, width int) numa.Claim {
	return numa.Claim{Milli: milli, Width: width, Nodes: cpuset.Of(node)}
}

func owned(t testing.TB, node int, list string) numa.Claim {
	cpus := set(t, list)
	return numa.Claim{Milli: 1000 * cpus.Len(), Width: cpus.Len(), Nodes: cpuset.Of(node), Owned: cpus}
}

// TestPlace goes through requests on two nodes of four cores with two threads:
// node 0 has the CPUs 0-3,8-11, node 1 has 4-7,12-15.
func TestPlace(t *testing.T) {
	const mib = 1 << 20
	dedicated := func(width int, more ...func(*numa.Request)) numa.Request {
		r := numa.Request{CPU: numa.Dedicated, Width: width, Milli: 1000 * width}
		for _, m := range more {
			m(&r)
		}
		return r
	}
	require := func(r *numa.Request) { r.Thread = numa.RequireCores }
	isolate := func(r *numa.Request) { r.Thread = numa.IsolateThreads }
	one := func(r *numa.Request) { r.Policy = numa.SingleNode }
	restricted := func(r *numa.Request) { r.Policy = numa.Restricted }
	granted := func(list string) func(*numa.Request) {
		return func(r *numa.Request) { r.Granted = set(t, list) }
	}
	before := func(nodes, cpus string) func(*numa.Request) {
		return func(r *numa.Request) { r.PreviousNodes, r.PreviousCPUs = set(t, nodes), set(t, cpus) }
	}
	for name, c := range map[string]struct {
		claims []numa.Claim
		state  numa.State
		r      numa.Request
		// cpus and nodes are what is wanted; idle and mems as well.
		cpus, nodes, idle, mems string
		missed, refused         string
	}{
		"shared":                        {r: numa.Request{Milli: 500}, cpus: "0-3,8-11", nodes: "0"},
		"adaptive, one node busier":     {claims: []numa.Claim{shared(0, 3000, 0)}, r: numa.Request{Milli: 500}, cpus: "0-3,8-11", nodes: "0"},
		"spread, one node busier":       {claims: []numa.Claim{shared(0, 3000, 0)}, r: numa.Request{Milli: 500, Strategy: numa.Spread}, cpus: "4-7,12-15", nodes: "1"},
		"pack, one node busier":         {claims: []numa.Claim{shared(1, 3000, 0)}, r: numa.Request{Milli: 500, Strategy: numa.Pack}, cpus: "4-7,12-15", nodes: "1"},
		"shared beside dedicated":       {claims: []numa.Claim{owned(t, 0, "0,8"), shared(1, 7900, 0)}, r: numa.Request{Milli: 500}, cpus: "1-3,9-11", nodes: "0"},
		"shared, wide":                  {r: numa.Request{Milli: 500, Width: 12}, cpus: "0-15", nodes: "0-1"},
		"shared, limit beyond machine":  {r: numa.Request{Width: 99}, cpus: "0-15", nodes: "0-1", missed: "99 CPUs wide: there are 16"},
		"shared, no room on one":        {claims: []numa.Claim{shared(0, 5000, 0), shared(1, 5000, 0)}, r: numa.Request{Milli: 4000}, cpus: "0-15", nodes: "0-1", missed: "on 1 node"},
		"shared, over-committed":        {claims: []numa.Claim{shared(0, 8000, 0), shared(1, 7500, 0)}, r: numa.Request{Milli: 4000, Width: 2}, cpus: "4-7,12-15", nodes: "1", missed: "4 of CPU: 0.5 are unclaimed"},
		"shared, all owned":             {claims: []numa.Claim{owned(t, 0, "0-3,8-11"), owned(t, 1, "4-7,12-15")}, r: numa.Request{Milli: 100}, cpus: "0-3,8-11", nodes: "0", missed: "CPUs that nobody owns"},
		"whole cores":                   {r: dedicated(4), cpus: "0-1,8-9", nodes: "0"},
		"odd":                           {r: dedicated(3), cpus: "0-1,8", nodes: "0", missed: "shares 1 core"},
		"odd beside odd":                {claims: []numa.Claim{owned(t, 0, "0-1,8"), owned(t, 1, "4-7,12-14")}, r: dedicated(3), cpus: "2,9-10", nodes: "0", missed: "shares 1 core"},
		"required cores":                {r: dedicated(3, require), cpus: "0-1,8-9", nodes: "0"},
		"required cores beside halves":  {claims: []numa.Claim{owned(t, 0, "0-2"), owned(t, 1, "4-7,12-15")}, r: dedicated(2, require), cpus: "3,11", nodes: "0"},
		"isolated threads":              {r: dedicated(3, isolate), cpus: "0-2", idle: "8-10", nodes: "0"},
		"required, sibling not granted": {r: dedicated(2, require, granted("0-3,9")), cpus: "1,9", nodes: "0"},
		"required, only halves granted": {r: dedicated(2, require, granted("0-3")), cpus: "0-1", idle: "8-9", nodes: "0"},
		"leaves room for shared":        {claims: []numa.Claim{shared(0, 2500, 0), owned(t, 1, "4-7,12-13")}, r: dedicated(5), cpus: "0-1,8-9,2", nodes: "0", missed: "shares 1 core"},
		"none left for shared":          {claims: []numa.Claim{shared(0, 100, 6), owned(t, 1, "4-7,12-13")}, r: dedicated(3, one), refused: "node 0 has 2 of 8 CPUs free; node 1 has 2 of 8 CPUs free"},
		"one node, too wide":            {r: dedicated(9, one), refused: "9 dedicated CPUs on one node: node 0 has 8 of 8 CPUs free"},
		"restricted, empty could":       {claims: []numa.Claim{owned(t, 0, "0-3"), owned(t, 1, "4-7")}, r: dedicated(6, restricted), refused: "6 dedicated CPUs on at most 1 node"},
		"restricted, empty could not":   {claims: []numa.Claim{owned(t, 0, "0,8")}, r: dedicated(10, restricted), cpus: "1-3,9-11,4-5,12-13", nodes: "0-1"},
		"best effort over nodes":        {claims: []numa.Claim{owned(t, 0, "0-3"), owned(t, 1, "4-7")}, r: dedicated(6), cpus: "8-11,12-13", nodes: "0-1", missed: "on 1 node"},
		"best effort, not to be had":    {claims: []numa.Claim{shared(0, 1000, 0)}, r: dedicated(16), cpus: "0-15", nodes: "0-1", missed: "there are not 16 to be had"},
		"device":                        {r: numa.Request{Milli: 500, Devices: []int{1}}, cpus: "4-7,12-15", nodes: "1"},
		"device without room":           {claims: []numa.Claim{owned(t, 1, "4-7,12-15")}, r: dedicated(2, func(r *numa.Request) { r.Devices = []int{1} }), cpus: "0,8", nodes: "0", missed: "device on node 1"},
		"memory has no room":            {claims: []numa.Claim{{Nodes: cpuset.Of(0), Bytes: 900 * mib}, shared(1, 1000, 0)}, r: numa.Request{Bytes: 200 * mib}, cpus: "4-7,12-15", nodes: "1"},
		"bound":                         {r: numa.Request{Bytes: 200 * mib, Memory: numa.BindMemory}, cpus: "0-3,8-11", nodes: "0", mems: "0"},
		"bound, little free":            {state: numa.State{FreeBytes: []int64{100 * mib, 300 * mib}}, r: numa.Request{Bytes: 200 * mib, Memory: numa.BindMemory}, cpus: "4-7,12-15", nodes: "1", mems: "1"},
		"bound, refused":                {state: numa.State{FreeBytes: []int64{0, 0}}, r: numa.Request{Bytes: mib, Memory: numa.BindMemory, Policy: numa.SingleNode}, refused: "too little memory"},
		"bound, too large":              {r: numa.Request{Bytes: 9 << 30, Memory: numa.BindMemory}, cpus: "0-3,8-11", nodes: "0", missed: "memory bound to nodes"},
		"huge pages":                    {state: numa.State{FreeHugepages: map[int64][]int64{2 * mib: {0, 8 * mib}}}, r: numa.Request{Hugepages: map[int64]int64{2 * mib: 4 * mib}}, cpus: "4-7,12-15", nodes: "1"},
		"memory granted elsewhere":      {r: numa.Request{Mems: set(t, "1"), Memory: numa.PreferredMemory}, cpus: "4-7,12-15", nodes: "1", mems: "1"},
		"interleaved":                   {r: numa.Request{Width: 16, Memory: numa.InterleaveMemory}, cpus: "0-15", nodes: "0-1", mems: "0-1"},
		"pod's node": {claims: []numa.Claim{{Pod: "a", Sandbox: true, Milli: 4000, Nodes: set(t, "1")}, shared(1, 3000, 0)},
			r: numa.Request{Pod: "a", Milli: 4000}, cpus: "4-7,12-15", nodes: "1"},
		"other pod's reservation": {claims: []numa.Claim{{Pod: "a", Sandbox: true, Milli: 6000, Nodes: set(t, "1")}, {Pod: "a", Milli: 1000, Nodes: set(t, "1")}, shared(0, 6000, 0)},
			r: numa.Request{Milli: 2000}, cpus: "0-3,8-11", nodes: "0"},
		"other pod's dedicated reservation": {claims: []numa.Claim{{Pod: "a", Sandbox: true, Milli: 4000, Width: 4, Nodes: set(t, "0")}, {Pod: "a", Milli: 4000, Width: 4, Nodes: set(t, "0"), Owned: set(t, "0-1,8-9")}, owned(t, 1, "4-7,12-15")},
			r: dedicated(4, one), cpus: "2-3,10-11", nodes: "0"},
		"resize keeps the node":    {claims: []numa.Claim{shared(0, 5000, 0)}, r: numa.Request{Milli: 2500, PreviousNodes: set(t, "0"), Strategy: numa.Spread}, cpus: "0-3,8-11", nodes: "0"},
		"resize leaves the node":   {claims: []numa.Claim{shared(0, 6000, 0)}, r: numa.Request{Milli: 2500, PreviousNodes: set(t, "0")}, cpus: "4-7,12-15", nodes: "1"},
		"grows":                    {r: dedicated(6, before("1", "5,6,13,14")), cpus: "4-6,12-14", nodes: "1"},
		"shrinks":                  {r: dedicated(2, before("1", "5,6,13,14")), cpus: "5,13", nodes: "1"},
		"grows its half":           {r: dedicated(4, before("1", "5,6,13")), cpus: "5,6,13,14", nodes: "1"},
		"unplaced":                 {r: numa.Request{Policy: numa.Unplaced, Granted: set(t, "0-20")}, cpus: "0-15"},
		"granted little":           {r: numa.Request{Granted: set(t, "5,13")}, cpus: "5,13", nodes: "1"},
		"unplaced weigh on all":    {claims: []numa.Claim{{Milli: 12000, Granted: set(t, "0-15")}}, r: numa.Request{Milli: 4000, Policy: numa.SingleNode}, refused: "2 of 8 CPUs unclaimed"},
		"unplaced on half":         {claims: []numa.Claim{{Milli: 3000, Granted: set(t, "4-7")}}, r: numa.Request{Milli: 4000}, cpus: "0-3,8-11", nodes: "0"},
		"one cache":                {r: dedicated(9, func(r *numa.Request) { r.Cache = numa.RequireCache }), cpus: "0-3,8-11,4", nodes: "0-1", missed: "one cache"},
		"narrow shared is left be": {claims: []numa.Claim{{Milli: 100, Nodes: set(t, "0"), Granted: set(t, "0,8")}, owned(t, 1, "4-7,12-15")}, r: dedicated(7, one), cpus: "0-3,9-11", nodes: "0", missed: "shares 1 core"},
	} {
		t.Run(name, func(t *testing.T) {
			topology := build(2, 4, 2)
			if c.r.Granted.IsEmpty() {
				c.r.Granted = topology.Online
			}
			for i := range c.claims {
				if c.claims[i].Granted.IsEmpty() {
					c.claims[i].Granted = topology.Online
				}
			}
			c.state.Claims = c.claims
			p, err := topology.Place(c.state, c.r)
			if c.refused != "" {
				if !errors.Is(err, numa.ErrRefused) || !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("%+v, %v", p, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !p.CPUs.Equal(set(t, c.cpus)) || !p.Nodes.Equal(set(t, c.nodes)) || !p.Idle.Equal(set(t, c.idle)) || !p.Mems.Equal(set(t, c.mems)) {
				t.Errorf("CPUs %q nodes %q idle %q mems %q; %s; missed %q", p.CPUs, p.Nodes, p.Idle, p.Mems, p.Reason, p.Missed)
			}
			if missed := strings.Join(p.Missed, "\n"); !strings.Contains(missed, c.missed) || c.missed == "" && missed != "" {
				t.Errorf("missed %q, want %q", p.Missed, c.missed)
			}
		})
	}
}

// TestBoundlessMemory has others expect more memory than can be added up.
func TestBoundlessMemory(t *testing.T) {
	m := build(2, 4, 1)
	full := shared(0, 0, 0)
	full.Bytes = math.MaxInt64
	both := full
	both.Nodes = cpuset.Of(0, 1)
	for name, claims := range map[string][]numa.Claim{
		"two on a node": {full, full}, "on both": {both, both, full},
		"a pod's": {{Pod: "p", Sandbox: true, Nodes: cpuset.Of(0), Bytes: math.MaxInt64}, full, full},
	} {
		r := numa.Request{Granted: m.Online, Memory: numa.BindMemory, Bytes: 1 << 20, Policy: numa.SingleNode}
		p, err := m.Place(numa.State{Claims: claims}, r)
		if name == "on both" && !errors.Is(err, numa.ErrRefused) || name != "on both" && (err != nil || p.Nodes.String() != "1") {
			t.Errorf("%s: on node %s, %v", name, p.Nodes, err)
		}
	}
}
