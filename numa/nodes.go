package numa

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"containerd-shim-numa-v1/numa/cpuset"
)

// Distances of the ACPI specification, "System Locality Distance Information
// Table", which the kernel also assumes where firmware has none
// (LOCAL_DISTANCE, REMOTE_DISTANCE in include/linux/topology.h).
const (
	acpiLocal  = 10
	acpiRemote = 20
	acpiMax    = 255
)

// tierDir holds a directory per memory tier since Linux 6.1.
const tierDir = "devices/virtual/memory_tiering"

// readNodes fills t.Nodes, except for their packages.
func (s *sysfs) readNodes(t *Topology, p presence) error {
	if p.nodes.IsEmpty() {
		t.Nodes = []Node{{CPUs: t.Online, Distance: []int{acpiLocal}, Default: true}}
		return nil
	}
	unclaimed := t.Online
	var home cpuset.Set // nodes that the kernel says have CPUs
	for id := range p.nodes.All() {
		dir := nodePath(id)
		cpus, _, err := s.list(dir + "cpulist")
		if err != nil {
			return err
		}
		if cpus.Intersects(t.Online) {
			home = home.Union(cpuset.Of(id))
		}
		n := Node{ID: id, Package: -1, CPUs: cpus.Intersect(unclaimed)}
		unclaimed = unclaimed.Difference(n.CPUs)
		if n.Distance, err = s.distances(dir+"distance", p.nodes.Len(), len(t.Nodes)); err != nil {
			return err
		}
		t.Nodes = append(t.Nodes, n)
	}
	adopt(t.Nodes, unclaimed)
	if err := s.readMemory(t, p.memory); err != nil {
		return err
	}
	return s.setDefaults(t, home)
}

func nodePath(id int) string { return fmt.Sprintf("%snode%d/", nodeDir, id) }

// readMemory fills in Node.Memory of those nodes, by ID, that have some.
func (s *sysfs) readMemory(t *Topology, memory cpuset.Set) error {
	for i := range t.Nodes {
		n := &t.Nodes[i]
		n.Memory = 0
		if !memory.Contains(n.ID) {
			continue
		}
		var err error
		if n.Memory, err = s.memTotal(nodePath(n.ID) + "meminfo"); err != nil {
			return err
		}
	}
	return nil
}

// adopt gives CPUs that no node claims to the first node that has any, or else
// the first.
func adopt(nodes []Node, cpus cpuset.Set) {
	first := 0
	for i := range nodes {
		if !nodes[i].CPUs.IsEmpty() {
			first = i
			break
		}
	}
	nodes[first].CPUs = nodes[first].CPUs.Union(cpus)
}

// memTotal reads the line "Node 0 MemTotal:        8087768 kB" of a node's
// meminfo: bytes, 0 if there is none.
func (s *sysfs) memTotal(path string) (int64, error) {
	text, _, err := s.text(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[2] != "MemTotal:" {
			continue
		}
		kB, err := strconv.ParseInt(fields[3], 10, 64)
		if err == nil && (kB < 0 || kB > math.MaxInt64>>10) {
			err = strconv.ErrRange
		}
		if err != nil {
			return 0, fmt.Errorf("%s: MemTotal %q: %w", path, fields[3], err)
		}
		return kB << 10, nil
	}
	return 0, nil
}

// distances reads a node's row, which the kernel writes for the nodes online
// in ascending order. A row that is not there, of another length or of
// impossible values becomes what the kernel takes without one. The row is that
// of the node with the index self, of so many nodes.
func (s *sysfs) distances(path string, nodes, self int) ([]int, error) {
	text, _, err := s.text(path)
	if err != nil {
		return nil, err
	}
	row := make([]int, nodes)
	if parseRow(text, row) && row[self] == acpiLocal {
		return row, nil
	}
	for i := range row {
		row[i] = acpiRemote
	}
	row[self] = acpiLocal
	return row, nil
}

// parseRow tells whether text has just the distances to fill row.
func parseRow(text string, row []int) bool {
	fields := strings.Fields(text)
	if len(fields) != len(row) {
		return false
	}
	for i, field := range fields {
		d, err := strconv.Atoi(field)
		if err != nil || d < acpiLocal || d > acpiMax {
			return false
		}
		row[i] = d
	}
	return true
}

// setDefaults sets Node.Default: for the fastest memory beside CPUs. home are
// the nodes, by ID, that the kernel says have CPUs. Where no node has both, as
// some hypervisors make it, the fastest memory must do, and where the kernel
// tells of no memory, that of the nodes with CPUs.
func (s *sysfs) setDefaults(t *Topology, home cpuset.Set) error {
	tiers, err := s.tiers()
	if err != nil {
		return err
	}
	var memory cpuset.Set
	for _, n := range t.Nodes {
		if n.Memory > 0 {
			memory = memory.Union(cpuset.Of(n.ID))
		}
	}
	usable := memory.Intersect(home)
	if usable.IsEmpty() {
		usable = memory
	}
	if usable.IsEmpty() {
		usable = home
	}
	fastest := math.MaxInt
	for id := range usable.All() {
		fastest = min(fastest, tiers[id])
	}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		n.Default = usable.Contains(n.ID) && tiers[n.ID] == fastest
	}
	return nil
}

// tiers are the memory tiers of nodes, by ID: the less the faster. Nodes that
// the kernel does not name are in tier 0.
func (s *sysfs) tiers() (map[int]int, error) {
	tiers := make(map[int]int)
	entries, err := fs.ReadDir(s.fsys, tierDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), "memory_tier")
		tier, err := strconv.Atoi(number)
		if !ok || err != nil {
			continue
		}
		nodes, _, err := s.list(tierDir + "/" + e.Name() + "/nodelist")
		if err != nil {
			return nil, err
		}
		for id := range nodes.All() {
			tiers[id] = tier
		}
	}
	return tiers, nil
}
