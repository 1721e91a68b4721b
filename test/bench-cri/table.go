package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// row is one measurement by both shims: of each round one sample.
type row struct {
	Name    string               `json:"name"`
	Unit    string               `json:"unit"`
	Samples map[string][]float64 `json:"samples"` // by handler
	Medians map[string]float64   `json:"medians"`
}

// rowSet collects samples in the order rows first appear.
type rowSet struct{ rows []*row }

func (s *rowSet) add(name, unit, handler string, sample float64) {
	i := slices.IndexFunc(s.rows, func(r *row) bool { return r.Name == name })
	if i < 0 {
		i = len(s.rows)
		s.rows = append(s.rows, &row{Name: name, Unit: unit, Samples: map[string][]float64{}, Medians: map[string]float64{}})
	}
	s.rows[i].Samples[handler] = append(s.rows[i].Samples[handler], sample)
}

// addRound adds what one round took.
func (s *rowSet) addRound(handler string, r round) {
	pods := float64(len(r.running))
	slices.Sort(r.running)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	s.add("all pods running", "ms", handler, ms(r.all))
	s.add("a pod running, p50", "ms", handler, ms(quantile(r.running, 0.50)))
	s.add("a pod running, p99", "ms", handler, ms(quantile(r.running, 0.99)))
	s.add("all pods removed", "ms", handler, ms(r.removed))
	s.add("CPU to running, each pod", "ms", handler, ms(r.startCPU)/pods)
	s.add("CPU with removal, each pod", "ms", handler, ms(r.totalCPU)/pods)
	s.add("mount table wake-ups, starting", "", handler, float64(r.start.Wakeups))
	s.add("mount table wake-ups, removing", "", handler, float64(r.remove.Wakeups))
	s.add("mount table entries more, peak", "", handler, float64(r.start.Peak))
	s.add("entries of root filesystems", "", handler, float64(r.rootfs))
	s.add("memory of a shim (PSS)", "KiB", handler, float64(r.pss)/pods)
}

// quantile is the smallest of the sorted values that at least the part q of
// them does not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

func (s *rowSet) summarised() []*row {
	for _, r := range s.rows {
		for handler, samples := range r.Samples {
			r.Medians[handler] = slices.Sorted(slices.Values(samples))[len(samples)/2]
		}
	}
	return s.rows
}

// printTable prints the medians and their ratio to the last handler's.
func printTable(rows []*row) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.DiscardEmptyColumns)
	fmt.Fprint(w, "\t")
	for _, h := range handlers {
		fmt.Fprintf(w, "%s\t", h)
	}
	fmt.Fprint(w, "unit\tratio\t\n")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t", r.Name)
		for _, h := range handlers {
			fmt.Fprintf(w, "%.0f\t", r.Medians[h])
		}
		ratio := "-"
		if base := r.Medians[handlers[len(handlers)-1]]; base != 0 {
			ratio = fmt.Sprintf("%.2f", r.Medians[handlers[0]]/base)
		}
		fmt.Fprintf(w, "%s\t%s\t\n", r.Unit, ratio)
	}
	w.Flush()
}
