package main

import (
	"fmt"
	"strings"
	"time"
)

// printTables prints a table for each machine and mix.
func printTables(all []result, o options) {
	fmt.Printf("%d × %d arrivals for each machine, mix and load; the first tenth of each run is not counted.\n", o.seeds, o.arrivals)
	for i, r := range all {
		if i == 0 || r.machine != all[i-1].machine {
			fmt.Printf("\n### %s: %s\n\n", r.machine, r.describe())
			head("mix", "load", "way", "avoidable", "forced", "imbalance", "shared cores", "extra caches", "p50", "p99")
		}
		avoidable, forced, caches := fmt.Sprintf("%.2f %%", r.per(r.avoidable)), fmt.Sprintf("%.2f %%", r.per(r.forced)), fmt.Sprintf("%.3f", r.extraCaches())
		if r.way == titleRequire || r.way == titleIsolate {
			// Free CPUs that are not whole cores are no room for them.
			avoidable, forced, caches = "", "", ""
		}
		row(r.mix, fmt.Sprintf("%.0f %%", 100*r.load), r.way, avoidable, forced,
			fmt.Sprintf("%.3f", r.meanImbalance()), fmt.Sprintf("%.1f", r.meanShared()), caches,
			r.time(0.5), r.time(0.99))
	}
}

// describe says what the machine is.
func (r *result) describe() string {
	hosts := newBoard(r.t).hosts
	return fmt.Sprintf("%d CPUs on %d nodes, %d to a core, %d last-level caches", r.t.Online.Len(), len(hosts), r.t.ThreadsPerCore, len(r.t.Caches))
}

func head(cells ...string) {
	row(cells...)
	row(strings.Split(strings.Repeat("---,", len(cells)-1)+"---", ",")...)
}

func row(cells ...string) { fmt.Println("| " + strings.Join(cells, " | ") + " |") }

// time is a quantile of the decisions' times, for a table.
func (r *result) time(q float64) string {
	if len(r.took) == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f µs", float64(r.quantile(q))/float64(time.Microsecond))
}
