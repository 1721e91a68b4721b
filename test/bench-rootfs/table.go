package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// number is x with as many digits as mean something.
func number(x float64) string {
	switch {
	case math.IsNaN(x):
		return ""
	case math.Abs(x) < 10:
		return strconv.FormatFloat(x, 'f', 2, 64)
	case math.Abs(x) < 100:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 0, 64)
}

func rounded(x float64) string {
	if math.IsNaN(x) {
		return ""
	}
	return strconv.FormatFloat(x, 'f', 0, 64)
}

func row(cells ...string) { fmt.Println("| " + strings.Join(cells, " | ") + " |") }

func head(cells ...string) {
	fmt.Println()
	row(cells...)
	fmt.Println("|" + strings.Repeat("---|", len(cells)))
}

func (r *results) print(ways []int, counts map[key]count, readers map[[2]int]suffered) {
	columns := []string{"way"}
	for _, n := range r.layers {
		columns = append(columns, layersWord(n))
	}
	each := func(mapped bool, cell func(way, layers int) string) {
		head(columns...)
		for _, w := range ways {
			if mapped && !allWays[w].mapped || !mapped && !allWays[w].plain {
				continue
			}
			cells := []string{allWays[w].name}
			for _, n := range r.layers {
				cells = append(cells, cell(w, n))
			}
			row(cells...)
		}
	}
	for _, mapped := range []bool{true, false} {
		for _, n := range r.parallel {
			fmt.Printf("\n**%s, %d at once.** µs per root filesystem until ready, and from there until gone.\n", mappingWord(mapped), n)
			each(mapped, func(w, layers int) string {
				p := place{key{w, layers, mapped}, n}
				made := r.typical(p, ready)
				if math.IsNaN(made) {
					return ""
				}
				return rounded(made) + " + " + rounded(r.typical(p, whole)-made)
			})
		}
	}
	for _, n := range r.parallel {
		fmt.Printf("\n**With an ID mapping, %d at once.** Time of a single one until ready: p50, p99, in µs.\n", n)
		each(true, func(w, layers int) string {
			all := r.latencies(place{key{w, layers, true}, n})
			if len(all) == 0 {
				return ""
			}
			return rounded(quantile(all, 0.5)) + ", " + rounded(quantile(all, 0.99))
		})
	}
	for _, mapped := range []bool{true, false} {
		fmt.Printf("\n**%s.** System calls until ready; changes of the host's mount table until gone.\n", mappingWord(mapped))
		each(mapped, func(w, layers int) string {
			c, ok := counts[key{w, layers, mapped}]
			if !ok {
				return ""
			}
			changes := strconv.Itoa(c.changes)
			if c.changes < 0 {
				changes = "?"
			}
			return strconv.Itoa(c.syscalls) + "; " + changes
		})
	}
	r.printReaders(ways, readers)
}

func (r *results) printReaders(ways []int, readers map[[2]int]suffered) {
	if readers == nil {
		return
	}
	fmt.Printf("\n**What a reader of the mount table suffers.** %d layers; wake-ups, bytes read and CPU time per root filesystem until gone.\n", readerLayers)
	columns := []string{"way"}
	for _, n := range r.parallel {
		columns = append(columns, fmt.Sprintf("%d at once", n))
	}
	head(columns...)
	for _, w := range ways {
		cells := []string{allWays[w].name}
		for _, n := range r.parallel {
			s := readers[[2]int{n, w}]
			made := float64(n * each(w, n))
			cells = append(cells, fmt.Sprintf("%s, %s kB, %s µs",
				number(float64(s.wakeUps)/made), number(float64(s.bytes)/1000/made), rounded(micros(s.cpu)/made)))
		}
		row(cells...)
	}
}

func layersWord(n int) string {
	if n == 1 {
		return "1 layer"
	}
	return fmt.Sprintf("%d layers", n)
}

func mappingWord(mapped bool) string {
	if mapped {
		return "With an ID mapping"
	}
	return "Without an ID mapping"
}
