package memory

import (
	"context"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"containerd-shim-numa-v1/numa/cpuset"
)

// When nodes count as short of memory: a sixteenth is left, or so much that
// nobody fills it between two looks.
const (
	shortPart  = 16
	shortBytes = 1 << 30

	lookEvery = 100 * time.Millisecond
)

// AwaitShortage blocks until the nodes, taken together, are short of memory:
// what is free and what is page cache is less than a sixteenth of theirs, or
// less than 1 GiB each on large nodes. sys is sysfs.
//
// It looks ten times a second. So whoever is bound to the nodes can be given
// others before it is killed, unless it takes more than the sixteenth in a
// tenth of a second. The error is ctx's, or wraps why a node cannot be read.
func AwaitShortage(ctx context.Context, sys fs.FS, nodes cpuset.Set) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		short, err := isShort(sys, nodes)
		if err != nil || short {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func isShort(sys fs.FS, nodes cpuset.Set) (bool, error) {
	var available, enough uint64
	for node := range nodes.All() {
		u, err := readUsage(sys, node)
		if err != nil {
			return false, fmt.Errorf("read memory of node %d: %w", node, err)
		}
		available += u.free + u.cache
		enough += min(u.total/shortPart, shortBytes)
	}
	return available < enough, nil
}

// usage is of one node, in bytes.
type usage struct {
	total, free uint64
	cache       uint64 // of files: what reclaim can give back without swap
}

// readUsage reads lines "Node 1 MemFree:   871432 kB" of a node's meminfo.
func readUsage(sys fs.FS, node int) (usage, error) {
	file := fmt.Sprintf("devices/system/node/node%d/meminfo", node)
	text, err := fs.ReadFile(sys, file)
	if err != nil {
		return usage{}, err
	}
	var u usage
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		const kilo = 1 << 10
		kilobytes, err := strconv.ParseUint(fields[3], 10, 64)
		if err != nil {
			return usage{}, fmt.Errorf("%s: line %q: %w", file, line, err)
		}
		switch fields[2] {
		case "MemTotal:":
			u.total = kilobytes * kilo
		case "MemFree:":
			u.free = kilobytes * kilo
		case "Active(file):", "Inactive(file):":
			u.cache += kilobytes * kilo
		}
	}
	if u.total == 0 {
		return usage{}, fmt.Errorf("%s: no MemTotal", file)
	}
	return u, nil
}
