package numa

import (
	"errors"
	"fmt"
	"io/fs"

	"containerd-shim-numa-v1/numa/cpuset"
)

// Directories below /sys: Documentation/ABI/stable/sysfs-devices-system-cpu
// and sysfs-devices-node of the kernel.
const (
	cpuDir  = "devices/system/cpu/"
	nodeDir = "devices/system/node/"
)

// maxNodes is the kernel's largest MAX_NUMNODES (x86 and arm64).
const maxNodes = 1024

// attempts is how often a machine is read whose CPUs or nodes come and go
// meanwhile.
const attempts = 3

var (
	errNoCPU   = errors.New("no CPU is online")
	errChanged = errors.New("CPUs or nodes came or went each time that they were read")
)

// Discover reads the topology from sysfs, whose root (/sys) fsys is.
//
// What contradicts itself is settled the way the kernel's scheduler does: a
// core ends where a node ends. A CPU in two nodes (numa=fake) counts for the
// lower one, a CPU in none for the first node with CPUs. The first of two CPUs
// that disagree on their siblings is right. What is no list or no number,
// larger than the kernel makes it, or cannot be read is an error that names
// the file. So is a machine whose CPUs or nodes come and go all the while; of a
// CPU that came just now, the kernel may not tell the cache yet.
//
// It takes some 5 µs per file, and opens a few per core and cache at most:
// 1 ms on a machine of 256 CPUs.
func Discover(fsys fs.FS) (*Topology, error) {
	s := &sysfs{fsys: fsys}
	var err error
	for range attempts {
		var t *Topology
		if t, err = s.discover(); err == nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("discover topology: %w", err)
}

// discover fails if it finds another machine in the end than in the beginning.
// It may also fail otherwise then: files go with their CPU.
func (s *sysfs) discover() (*Topology, error) {
	before, err := s.presence()
	if err != nil {
		return nil, err
	}
	t, err := s.topology(before)
	if err != nil {
		return nil, err
	}
	after, err := s.presence()
	if err != nil {
		return nil, err
	}
	if !after.equal(before) {
		return nil, errChanged
	}
	return t, nil
}

// presence is what comes and goes while a machine runs, and what everything
// else but the size of memory depends on.
type presence struct {
	online, isolated cpuset.Set
	// nodes are the nodes online, empty if the kernel knows none; memory are
	// those that have some.
	nodes, memory cpuset.Set
}

func (p presence) equal(q presence) bool {
	return p.online.Equal(q.online) && p.isolated.Equal(q.isolated) &&
		p.nodes.Equal(q.nodes) && p.memory.Equal(q.memory)
}

func (s *sysfs) presence() (p presence, err error) {
	if p.online, _, err = s.list(cpuDir + "online"); err != nil {
		return presence{}, err
	}
	if p.online.IsEmpty() {
		return presence{}, fmt.Errorf("%sonline: %w", cpuDir, errNoCPU)
	}
	if p.isolated, _, err = s.list(cpuDir + "isolated"); err != nil {
		return presence{}, err
	}
	p.isolated = p.isolated.Intersect(p.online)
	if p.nodes, _, err = s.list(nodeDir + "online"); err != nil {
		return presence{}, err
	}
	if p.nodes.Max() >= maxNodes {
		return presence{}, fmt.Errorf("%sonline: node %d, the kernel has at most %d", nodeDir, p.nodes.Max(), maxNodes)
	}
	memory, told, err := s.list(nodeDir + "has_memory")
	if err != nil {
		return presence{}, err
	}
	if p.memory = p.nodes; told {
		p.memory = memory.Intersect(p.nodes)
	}
	return p, nil
}

// topology reads what is online.
func (s *sysfs) topology(p presence) (*Topology, error) {
	t := &Topology{Online: p.online, Isolated: p.isolated}
	for _, read := range []func(*Topology) error{
		func(t *Topology) error { return s.readNodes(t, p) },
		s.readCores,
		s.readPackages,
		s.readCaches,
		s.readEfficiency,
	} {
		if err := read(t); err != nil {
			return nil, err
		}
	}
	t.Hash = t.hash()
	return t, nil
}
