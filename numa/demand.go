package numa

import "math"

// demandSizes are the upper bounds, in CPUs, of the classes of a [Demand];
// what is larger falls into the last. They are close enough that a request of
// a class's bound finds room mostly where those of the class do: coarser ones
// doubled the forced splits on nodes of 20 CPUs.
var demandSizes = [...]int{
	1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 28, 32,
	40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256,
}

// demandMemory is what an older request weighs after each newer one: half
// after about 700.
const demandMemory = 0.999

// Demand is a histogram of the sizes of requests. Older ones weigh less. The
// zero value, no request yet, expects small requests more than large ones.
type Demand [len(demandSizes)]float64

// Add returns d with one more request, of the size of the claim that it got.
// Whoever counts a pod's reservation does not count its containers as well:
// they need no room beyond it.
func (d Demand) Add(c Claim) Demand {
	for i := range d {
		d[i] *= demandMemory
	}
	d[demandClass(c.size())]++
	return d
}

func demandClass(cpus int) int {
	for i, size := range demandSizes {
		if cpus <= size {
			return i
		}
	}
	return len(demandSizes) - 1
}

// shares are the shares of the classes among all requests; their sum is 1.
func (d Demand) shares() Demand {
	total := 0.0
	for _, n := range d {
		total += max(n, 0)
	}
	// Not so of what has been read from a damaged file.
	if !(total > 0) || math.IsInf(total, 0) {
		total = 0
		for i, size := range demandSizes {
			d[i] = 1 / float64(size)
			total += d[i]
		}
	}
	for i := range d {
		d[i] = max(d[i], 0) / total
	}
	return d
}

// futurePerNode is how many requests per node are looked ahead for.
const futurePerNode = 1

// rare is the share of requests below which a class is not looked at.
const rare = 1e-4

// forecast is what the requests to come will lack.
type forecast struct {
	// shortage are, for each class of demand and each number of places for
	// requests of its size, the expected number that find none, as far as it
	// matters.
	shortage [len(demandSizes)][]float64
	// slots are the places that there are, each on one node.
	slots [len(demandSizes)]int
}

// lookAhead looks at the next requests on a machine of that many nodes. Of
// each class, those that are as large or larger need its places: their number
// is Poisson's, and so the expected shortage of n places is
//
//	E[max(X-n, 0)] = E[X] - P(X>=1) - ... - P(X>=n)
//
// of which the class bears its part.
func (d Demand) lookAhead(nodes int) (f forecast) {
	shares := d.shares()
	atLeast := 0.0
	// A table for each class, up to where next to nothing is short.
	const longest, usual = 32, 256
	room := make([]float64, 0, usual)
	for i := len(d) - 1; i >= 0; i-- {
		if shares[i] < rare {
			continue
		}
		atLeast += shares[i]
		expected := float64(futurePerNode*nodes) * atLeast
		part := shares[i] / atLeast
		begin := len(room)
		p, below, short := math.Exp(-expected), 0.0, expected
		for n := 0; n < longest && short > rare; n++ {
			room = append(room, part*short)
			below += p
			p *= expected / float64(n+1)
			short -= 1 - below
		}
		f.shortage[i] = room[begin:len(room):len(room)]
	}
	return f
}

// add adds the places on a node with room for that many CPUs, or with a
// negative sign removes them.
func (f *forecast) add(cpus, sign int) {
	for i, size := range demandSizes {
		if size > cpus {
			return
		}
		if len(f.shortage[i]) > 0 {
			f.slots[i] += sign * (cpus / size)
		}
	}
}

// expected is the number of the next requests that find no node.
func (f *forecast) expected() (short float64) {
	for i, table := range f.shortage {
		if n := f.slots[i]; n < len(table) {
			short += table[n]
		}
	}
	return short
}
