package placement

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/numa/ledger"
)

// host is what is known of the machine and of who is on it. It does not change
// once made.
type host struct {
	topology *numa.Topology
	// machine tells when topology is out of date. It is for current alone.
	machine *numa.Machine
	ledger  *ledger.Ledger
	dir     string // of the ledger
	sysfs   fs.FS
	// foreign: sysfs is not this machine's.
	foreign bool
}

// nodes are the IDs of the machine's memory nodes.
func (h *host) nodes() cpuset.Set {
	return cpuset.Collect(func(yield func(int) bool) {
		for _, n := range h.topology.Nodes {
			if !yield(n.ID) {
				return
			}
		}
	})
}

// openHost reads the machine's topology and opens its ledger. changed is
// called when a change by this process concerns other containers of it.
func openHost(s Settings, changed func(), defect func(error)) (*host, error) {
	const bootFile = "/proc/sys/kernel/random/boot_id"
	boot, err := os.ReadFile(bootFile)
	if err != nil {
		return nil, fmt.Errorf("find out which boot this is: %w", err)
	}
	dir, root := s.Ledger, s.Sysfs
	if dir == "" {
		dir = ledger.DefaultDir
	}
	if root == "" {
		root = "/sys"
	}
	// The first shim of a boot remembers the topology as well. Whether the
	// directory will do is the ledger's to say.
	_ = os.Mkdir(dir, 0o700)
	h := &host{dir: dir, sysfs: os.DirFS(root), foreign: s.Sysfs != ""}
	h.machine = numa.NewMachine(dir, h.sysfs, strings.TrimSpace(string(boot)))
	if h.topology, err = h.machine.Topology(); err != nil {
		return nil, err
	}
	h.ledger, err = ledger.Open(ledger.Config{Dir: dir, Topology: h.topology, Changed: changed, Defect: defect})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// current is h, or another where CPUs or nodes have come or gone. One caller at
// a time.
func (h *host) current() (*host, error) {
	t, err := h.machine.Topology()
	if err != nil || t == h.topology {
		return h, err
	}
	now := *h
	now.topology = t
	h.ledger.SetTopology(t)
	return &now, nil
}

// nodeFiles is where the kernel tells of memory nodes, below /sys:
// Documentation/ABI/stable/sysfs-devices-node.
const nodeFiles = "devices/system/node/node"

// freeBytes are the free bytes of each node, by index; nil if a node does not
// tell. What can be reclaimed, such as page cache, is not in them.
func (h *host) freeBytes() []int64 {
	free := make([]int64, len(h.topology.Nodes))
	for i, n := range h.topology.Nodes {
		text, err := fs.ReadFile(h.sysfs, nodeFiles+strconv.Itoa(n.ID)+"/meminfo")
		if err != nil {
			return nil
		}
		// "Node 0 MemFree:  123 kB"
		_, rest, ok := strings.Cut(string(text), "MemFree:")
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			return nil
		}
		kilobytes, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil || kilobytes < 0 || kilobytes > maxMemory>>10 {
			return nil
		}
		free[i] = kilobytes << 10
	}
	return free
}

// freeHugepages are the free bytes in pages of the sizes asked for, by index
// of the node; a size that a node does not tell of is left out.
func (h *host) freeHugepages(sizes map[int64]int64) map[int64][]int64 {
	all := map[int64][]int64{}
	for size := range sizes {
		free := make([]int64, len(h.topology.Nodes))
		known := true
		for i, n := range h.topology.Nodes {
			name := fmt.Sprintf("%s%d/hugepages/hugepages-%dkB/free_hugepages", nodeFiles, n.ID, size>>10)
			text, err := fs.ReadFile(h.sysfs, name)
			pages, parseErr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			if err != nil || parseErr != nil || pages < 0 || pages > maxMemory/size {
				known = false
				break
			}
			free[i] = pages * size
		}
		if known {
			all[size] = free
		}
	}
	return all
}

// state is what is known before the ledger is locked.
func (h *host) state(r numa.Request) numa.State {
	var s numa.State
	if r.Memory == numa.BindMemory && r.Bytes > 0 {
		s.FreeBytes = h.freeBytes()
	}
	if len(r.Hugepages) > 0 {
		s.FreeHugepages = h.freeHugepages(r.Hugepages)
	}
	return s
}

// credit counts as free what a container may have taken itself of the nodes
// that it is on: there is room for it, as it was found when it was put there.
func (h *host) credit(s *numa.State, before decision) {
	nodes := int64(before.claim.Nodes.Len())
	for i, n := range h.topology.Nodes {
		if !before.claim.Nodes.Contains(n.ID) {
			continue
		}
		if s.FreeBytes != nil {
			s.FreeBytes[i] += before.claim.Bytes / nodes
		}
		for size, free := range s.FreeHugepages {
			free[i] += before.asked.Hugepages[size] / nodes
		}
	}
}
