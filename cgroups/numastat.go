package cgroups

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// NodeMemory is what a container, with the cgroups below its own, uses of one
// memory node, in bytes.
type NodeMemory struct {
	Node int `json:"node"`
	// Anon and File are pages of processes and of files. Those of tmpfs are
	// among Anon on v1, among File on v2.
	Anon uint64 `json:"anon"`
	File uint64 `json:"file"`
	// Other is, on v1, what cannot be reclaimed, such as locked pages, and on
	// v2 the kernel's own: stacks, page tables, slabs. v1 does not tell the
	// latter by node.
	Other uint64 `json:"other"`
}

// Total is all that is known to be on the node.
func (m NodeMemory) Total() uint64 { return m.Anon + m.File + m.Other }

// NUMAStat returns the container's memory on each node of the machine, in the
// order of their numbers, from memory.numa_stat. It is empty if the kernel has
// none (no memory controller, no CONFIG_NUMA) or the cgroup is gone.
//
// It is not part of Stats: neither message of containerd/cgroups has a field
// for it.
func (c *Cgroup) NUMAStat() ([]NodeMemory, error) {
	const file = "memory.numa_stat"
	controller, parse := "memory", parseNUMAStatV1
	if c.v2 {
		controller, parse = unified, parseNUMAStatV2
	}
	dir, ok := c.dirs[controller]
	if !ok {
		return nil, nil
	}
	text, err := readFile(filepath.Join(dir, file))
	if isAbsent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read memory by node: %w", err)
	}
	return parse(string(text)), nil
}

// parseNUMAStatV1 reads lines "hierarchical_anon=2 N0=1 N1=1" in pages, kernel
// Documentation/admin-guide/cgroup-v1/memory.rst, section 5.6.
func parseNUMAStatV1(text string) []NodeMemory {
	pageSize := uint64(os.Getpagesize())
	return parseNUMAStat(text, func(m *NodeMemory, key string, pages uint64) {
		kind, _ := strings.CutPrefix(key, "hierarchical_")
		if kind == key {
			return // of this cgroup alone
		}
		switch name, _, _ := strings.Cut(kind, "="); name {
		case "anon":
			m.Anon = pages * pageSize
		case "file":
			m.File = pages * pageSize
		case "unevictable":
			m.Other = pages * pageSize
		}
	})
}

// parseNUMAStatV2 reads lines "anon N0=4096 N1=4096" in bytes, cgroup-v2.rst.
func parseNUMAStatV2(text string) []NodeMemory {
	return parseNUMAStat(text, func(m *NodeMemory, key string, bytes uint64) {
		switch key {
		case "anon":
			m.Anon = bytes
		case "file":
			m.File = bytes
		case "kernel_stack", "pagetables", "sec_pagetables", "slab_reclaimable", "slab_unreclaimable":
			m.Other += bytes
		}
	})
}

// parseNUMAStat calls set for each value, with the word that its line begins
// with.
func parseNUMAStat(text string, set func(m *NodeMemory, key string, value uint64)) []NodeMemory {
	nodes := make(map[int]*NodeMemory)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		for _, field := range fields[min(1, len(fields)):] {
			name, value, ok := strings.Cut(field, "=")
			id, err := strconv.Atoi(strings.TrimPrefix(name, "N"))
			if !ok || err != nil || id < 0 {
				continue
			}
			if nodes[id] == nil {
				nodes[id] = &NodeMemory{Node: id}
			}
			set(nodes[id], fields[0], parseNumber(value))
		}
	}
	list := make([]NodeMemory, 0, len(nodes))
	for _, m := range nodes {
		list = append(list, *m)
	}
	slices.SortFunc(list, func(a, b NodeMemory) int { return a.Node - b.Node })
	return list
}
