package numa

import (
	"fmt"
	"io/fs"
	"time"
)

// settling is for how long after a change a machine that does not tell the
// caches of all CPUs is read again: the kernel tells them within milliseconds
// after a CPU came online, or never.
const settling = 10 * time.Second

// Machine is a machine whose CPUs and nodes come and go while a process knows
// it. It is used by one goroutine at a time.
type Machine struct {
	dir, bootID string
	sysfs       sysfs
	// topology is what was read last, nil before that; seen is what it depends
	// on, since when that was found to be so.
	topology *Topology
	seen     presence
	since    time.Time
}

// NewMachine is the machine whose sysfs fsys is. It reads nothing yet. What it
// will have read it remembers in a file in dir as well, for the next process,
// if dir is the user's alone. bootID is /proc/sys/kernel/random/boot_id.
func NewMachine(dir string, fsys fs.FS, bootID string) *Machine {
	return &Machine{dir: dir, bootID: bootID, sysfs: sysfs{fsys: fsys}}
}

// Topology is the topology of now. While nothing comes or goes it is the same
// one, also in the size of memory, and costs the reading of four small files.
func (m *Machine) Topology() (*Topology, error) {
	p, err := m.sysfs.presence()
	if err != nil {
		return nil, fmt.Errorf("discover topology: %w", err)
	}
	same := m.topology != nil && p.equal(m.seen)
	if same && m.topology.fits(p) && (m.topology.cachesTold() || time.Since(m.since) > settling) {
		return m.topology, nil
	}
	t, err := m.sysfs.loadCached(m.dir, m.bootID, p)
	if err != nil {
		return nil, err
	}
	if same && t.Hash == m.topology.Hash {
		return m.topology, nil
	}
	if !same {
		m.since = time.Now()
	}
	m.topology, m.seen = t, p
	return t, nil
}
