package main

import (
	"testing"
	"time"
)

// samplesOf makes a way's samples by round, in microseconds.
func samplesOf(ready ...int) map[int]*sample {
	all := map[int]*sample{}
	for round, µs := range ready {
		if µs > 0 {
			all[round] = &sample{ready: time.Duration(µs) * time.Microsecond}
		}
	}
	return all
}

// A round that was slow for both ways must not matter, nor the first one.
func TestRatioComparesWithinRounds(t *testing.T) {
	a, b := place{key: key{way: 1}}, place{key: key{way: 2}}
	r := results{samples: map[place]map[int]*sample{
		a: samplesOf(9000, 10, 1000, 10),
		b: samplesOf(1, 20, 2000, 20),
	}}
	if got := r.ratio(a, b, ready).median; got != 0.5 {
		t.Errorf("ratio %v, want 0.5", got)
	}
	r.samples[b] = samplesOf(40) // was measured once only, to warm up
	if got := r.ratio(a, b, ready).median; got != 0.25 {
		t.Errorf("without a common round: ratio %v, want that of the medians, 10/40", got)
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct{ q, want float64 }{{0, 1}, {0.5, 3}, {0.99, 5}, {1, 5}} {
		if got := quantile([]float64{5, 3, 1, 2, 4}, c.q); got != c.want {
			t.Errorf("quantile %v is %v, want %v", c.q, got, c.want)
		}
	}
}
