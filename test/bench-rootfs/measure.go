package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// place is a case of a number of root filesystems at once.
type place struct {
	key
	parallel int
}

// results are the samples by round, for the first round is to warm up and
// some cases sit out rounds.
type results struct {
	options
	ways    []int
	samples map[place]map[int]*sample
}

// Cases that take long: most rounds, or all others, go without.
const (
	slow       = 3 * time.Second
	slowRounds = 6
	verySlow   = 8 * time.Second
)

// measure has the crews take turns until the time is over.
func measure(crews []*crew, ways []int, o options) (*results, error) {
	r := &results{options: o, ways: ways, samples: map[place]map[int]*sample{}}
	spent := make([]time.Duration, len(crews))
	rounds := make([]int, len(crews))
	for began := time.Now(); time.Since(began) < o.budget || slices.Min(rounds) < 2; {
		next := 0
		for i, c := range crews {
			if share(spent[i], c) < share(spent[next], crews[next]) {
				next = i
			}
		}
		from := time.Now()
		if err := r.round(crews[next], rounds[next]); err != nil {
			return nil, err
		}
		spent[next] += time.Since(from)
		rounds[next]++
	}
	return r, nil
}

// share is what a crew has had, in proportion to what it is to have: large
// ones need more time for a round.
func share(spent time.Duration, c *crew) float64 {
	const few = 20
	return float64(spent) / float64(few+c.n)
}

// each is how many root filesystems a worker makes in a row. More than one, so
// that the time to wake all workers, told by the way "nothing", matters less;
// the most where it would matter most.
func each(w, parallel int) int {
	const least, most = 3, 8
	switch allWays[w].name {
	case perLayer:
		return 1
	case onBase, nothing:
		return maxEach
	}
	return max(least, min(most, 100/parallel))
}

// seldomRounds: ways that no promise is about take part in one of so many
// rounds.
const seldomRounds = 3

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL (membarrier(2)).
const membarrierGlobal = 1

// settle waits for what the kernel still has to free (RCU callbacks, works),
// for it must not be the next way's burden.
func settle(after time.Duration) {
	const least, most = 3 * time.Millisecond, 100 * time.Millisecond
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0) // a grace period; may be lacking
	time.Sleep(max(least, min(most, after/4)))
}

// round has a crew work in each way, for all numbers of layers, with and
// without a mapping, in an order of its own: what 400 layers leave behind must
// not always meet 400 layers.
func (r *results) round(c *crew, round int) error {
	var places []place
	for _, layers := range r.layers {
		for _, w := range r.ways {
			for _, mapped := range []bool{true, false} {
				p := place{key{w, layers, mapped}, c.n}
				if (mapped && allWays[w].mapped || !mapped && allWays[w].plain) && !r.sitsOut(p, round) {
					places = append(places, p)
				}
			}
		}
	}
	order := rand.New(rand.NewPCG(uint64(round), uint64(c.n)))
	order.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
	for _, p := range places {
		from := time.Now()
		s, err := c.round(p.way, slices.Index(r.layers, p.layers), p.mapped, each(p.way, c.n))
		if err != nil {
			return err
		}
		if r.samples[p] == nil {
			r.samples[p] = map[int]*sample{}
		}
		r.samples[p][round] = s
		settle(time.Since(from))
	}
	return nil
}

func (r *results) sitsOut(p place, round int) bool {
	if !allWays[p.way].promised && round%seldomRounds != 1 {
		return true
	}
	longest := time.Duration(0)
	for _, s := range r.samples[p] {
		longest = max(longest, (s.ready+s.gone)*time.Duration(len(s.each)))
	}
	return longest > verySlow || longest > slow && round%slowRounds != 0
}

// warm are the samples of p without the first round's, if there are others.
func (r *results) warm(p place) map[int]*sample {
	all := r.samples[p]
	if len(all) < 2 {
		return all
	}
	warm := map[int]*sample{}
	for round, s := range all {
		if round > 0 {
			warm[round] = s
		}
	}
	return warm
}

// typical is the median over rounds of what a root filesystem took, in
// microseconds; NaN if it was not measured.
func (r *results) typical(p place, of func(*sample) time.Duration) float64 {
	var all []float64
	for _, s := range r.warm(p) {
		all = append(all, micros(of(s)))
	}
	return quantile(all, 0.5)
}

// latencies are the times of single root filesystems until they were ready, in
// microseconds.
func (r *results) latencies(p place) []float64 {
	var all []float64
	for _, s := range r.warm(p) {
		for _, e := range s.each {
			all = append(all, micros(time.Duration(e.to-e.from)))
		}
	}
	return all
}

func ready(s *sample) time.Duration { return s.ready }
func whole(s *sample) time.Duration { return s.ready + s.gone }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func quantile(all []float64, q float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	slices.Sort(all)
	return all[min(int(q*float64(len(all))), len(all)-1)]
}

// ratio is how many times of b a takes.
type ratio struct{ low, median, high float64 } // quartiles over rounds

func (x ratio) String() string {
	return fmt.Sprintf("%s (%s to %s)", number(x.median), number(x.low), number(x.high))
}

// ratio compares a with b round by round, as both then met the same machine;
// by their medians if they have no round in common.
func (r *results) ratio(a, b place, of func(*sample) time.Duration) ratio {
	var all []float64
	bs := r.warm(b)
	for round, s := range r.warm(a) {
		if other, ok := bs[round]; ok {
			all = append(all, float64(of(s))/float64(of(other)))
		}
	}
	if len(all) == 0 {
		x := r.typical(a, of) / r.typical(b, of)
		return ratio{x, x, x}
	}
	return ratio{quantile(all, 0.25), quantile(all, 0.5), quantile(all, 0.75)}
}

func (r *results) wayNamed(name string) int {
	return slices.IndexFunc(allWays, func(w way) bool { return w.name == name })
}
