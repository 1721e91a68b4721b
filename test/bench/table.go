package main

import "fmt"

// printTable prints a line for each kind: every runtime's median, and how it
// relates to the last one's.
func printTable(runtimes []string, rows []*Row) {
	var kinds []string
	byKind := map[string]map[string]*Row{}
	for _, r := range rows {
		if byKind[r.Kind] == nil {
			kinds = append(kinds, r.Kind)
			byKind[r.Kind] = map[string]*Row{}
		}
		byKind[r.Kind][r.Runtime] = r
	}
	reference := runtimes[len(runtimes)-1]
	fmt.Printf("%-42s", "median (95th percentile)")
	width := 26
	for _, runtime := range runtimes {
		width = max(width, len(runtime))
	}
	for _, runtime := range runtimes {
		fmt.Printf(" %*s", width, runtime)
	}
	for _, runtime := range runtimes[:len(runtimes)-1] {
		fmt.Printf("  %s/%s", short(runtime), short(reference))
	}
	fmt.Println()
	for _, kind := range kinds {
		fmt.Printf("%-42s", kind)
		for _, runtime := range runtimes {
			r := byKind[kind][runtime]
			fmt.Printf(" %*s", width, fmt.Sprintf("%.1f (%.1f) %s", r.Median, r.P95, r.Unit))
		}
		for _, runtime := range runtimes[:len(runtimes)-1] {
			fmt.Printf(" %9.2f", byKind[kind][runtime].Median/byKind[kind][reference].Median)
		}
		fmt.Println()
	}
}

// short is the name part of a runtime type: io.containerd.numa.v1 is numa.
func short(runtime string) string {
	const domain = len("io.containerd.")
	if len(runtime) <= domain {
		return runtime
	}
	name := runtime[domain:]
	for i := range name {
		if name[i] == '.' {
			return name[:i]
		}
	}
	return name
}
