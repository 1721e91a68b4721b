package main

import (
	"fmt"
	"time"
)

// What the project promises.
const (
	// promisedForced are percentage points more than best-fit.
	promisedForced = 0.5
	// promisedImbalance is a part of best-fit's, on machines of two to four
	// nodes.
	promisedImbalance = 0.7
	promisedCaches    = 0.1
	promisedTime      = 100 * time.Microsecond
	// promisedTimeCPUs is how large the machine may be for it.
	promisedTimeCPUs = 256
)

// verdicts prints whether the promises are kept.
func verdicts(all []result) bool {
	fmt.Print("\n### Promises\n\n")
	head("promise", "worst", "kept")
	kept := true
	say := func(what, worst string, ok bool) {
		word := "PASS"
		if !ok {
			word, kept = "**MISSED**", false
		}
		row(what, worst, word)
	}
	find := func(r result, way string) result {
		for _, o := range all {
			if o.machine == r.machine && o.mix == r.mix && o.load == r.load && o.way == way {
				return o
			}
		}
		panic("no such way: " + way)
	}
	where := func(r result) string { return fmt.Sprintf("%s, %s, %.0f %%", r.machine, r.mix, 100*r.load) }
	avoidable, overlaps, shared := 0, 0, 0.0
	var slowest, spread result
	for _, r := range all {
		switch r.way {
		case titleRequire, titleIsolate:
			shared = max(shared, r.shared)
			overlaps += r.overlaps
		case titleOurs:
			avoidable += r.avoidable
			overlaps += r.overlaps
			if r.quantile(0.99) > slowest.quantile(0.99) && r.t.Online.Len() <= promisedTimeCPUs {
				slowest = r
			}
			if r.extraCaches() > spread.extraCaches() {
				spread = r
			}
		}
	}
	say("avoidable: none", fmt.Sprint(avoidable), avoidable == 0)
	say("CPUs given twice: none", fmt.Sprint(overlaps), overlaps == 0)
	say("cores shared under require and isolate: none", fmt.Sprintf("%.0f", shared), shared == 0)
	say(fmt.Sprintf("extra caches: at most %.1f", promisedCaches), fmt.Sprintf("%.3f (%s)", spread.extraCaches(), where(spread)), spread.extraCaches() <= promisedCaches)
	say(fmt.Sprintf("p99 of a decision, up to %d CPUs: below %v", promisedTimeCPUs, promisedTime),
		fmt.Sprintf("%v (%s)", slowest.quantile(0.99), where(slowest)), slowest.quantile(0.99) < promisedTime)
	for _, r := range all {
		if r.way != titleOurs {
			continue
		}
		hosts := len(newBoard(r.t).hosts)
		if hosts < 2 {
			continue
		}
		best := find(r, titleBestFit)
		more := r.per(r.forced) - best.per(best.forced)
		say(where(r)+fmt.Sprintf(": forced at most %.1f points beyond best-fit's", promisedForced),
			fmt.Sprintf("%+.2f", more), more <= promisedForced)
		if hosts <= 4 {
			ratio := r.meanImbalance() / best.meanImbalance()
			// What spreading alone could do, and what it costs.
			worst := find(r, titleWorstFit)
			say(where(r)+fmt.Sprintf(": imbalance at most %.1f of best-fit's", promisedImbalance),
				fmt.Sprintf("%.2f (worst-fit: %.2f, with %+.2f points of forced)", ratio, worst.meanImbalance()/best.meanImbalance(), worst.per(worst.forced)-best.per(best.forced)),
				ratio <= promisedImbalance)
		}
	}
	return kept
}
