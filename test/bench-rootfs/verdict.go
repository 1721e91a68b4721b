package main

import (
	"fmt"
	"slices"
)

// What the project promises, with an ID mapping.
const (
	promisedCommon   = 1.0 // times the common parent's, any layers, any number at once
	promisedPerLayer = 10  // times less than per layer
	promisedBase     = 40  // the same, on a shared base
	promisedFlat     = 1.2 // times, from flatFew layers to flatMany, on a shared base
	promiseLayers    = 50
	promiseAtOnce    = 100
	flatFew          = 10
	flatMany         = 400
)

// verdicts prints whether the promises are kept, by the time until ready of all
// that are made at once, divided by their number; others are said besides.
func (r *results) verdicts() (kept bool) {
	kept = true
	at := func(way string, layers, parallel int) place {
		return place{key{r.wayNamed(way), layers, true}, parallel}
	}
	fmt.Print("\n### Aims and what came of them\n\nMedian over rounds and quartiles of the time per root filesystem, until ready and until gone. Besides, the p50 of single ones, until ready.\n")
	head("aim", "at once", "until ready", "until gone", "p50 of a single one", "reached")
	say := func(what string, parallel int, a, b place, ok func(float64) bool) {
		made, gone := r.ratio(a, b, ready), r.ratio(a, b, whole)
		verdict := "yes"
		if !ok(made.median) {
			verdict, kept = "**no**", false
		}
		single := quantile(r.latencies(a), 0.5) / quantile(r.latencies(b), 0.5)
		row(what, fmt.Sprint(parallel), made.String(), gone.String(), number(single), verdict)
	}
	for _, layers := range r.layers {
		for _, n := range r.parallel {
			say(fmt.Sprintf("%s, of the common parent: at most %.1f", layersWord(layers), promisedCommon), n,
				at(ours, layers, n), at(commonParent, layers, n), func(x float64) bool { return x <= promisedCommon })
		}
	}
	if slices.Contains(r.layers, flatFew) && slices.Contains(r.layers, flatMany) {
		for _, n := range r.parallel {
			say(fmt.Sprintf("shared base, %d layers of %d: at most %.1f", flatMany, flatFew, promisedFlat), n,
				at(onBase, flatMany, n), at(onBase, flatFew, n), func(x float64) bool { return x <= promisedFlat })
		}
	}
	if slices.Contains(r.layers, promiseLayers) && slices.Contains(r.parallel, promiseAtOnce) {
		for _, p := range []struct {
			way  string
			many float64
		}{{ours, promisedPerLayer}, {onBase, promisedBase}} {
			say(fmt.Sprintf("%s, per layer of it, %s: at least %.0f", p.way, layersWord(promiseLayers), p.many), promiseAtOnce,
				at(perLayer, promiseLayers, promiseAtOnce), at(p.way, promiseLayers, promiseAtOnce), func(x float64) bool { return x >= p.many })
		}
	}
	return kept
}
