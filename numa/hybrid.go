package numa

import "fmt"

// efficientPMUs name the CPUs of the slow kinds of core of Intel's hybrid
// machines: the kernel has a performance monitoring unit per kind
// (arch/x86/events/intel/core.c).
var efficientPMUs = [...]string{"devices/cpu_atom/cpus", "devices/cpu_lowpower/cpus"}

// efficientShare is how much of the fastest core's capacity a core has at most
// to count as slow, in percent. Intel's slow cores and Arm's little ones are
// below; favoured cores, which clock somewhat higher, leave the others above.
const efficientShare = 75

// readEfficiency fills in Core.Efficient, by kind or else by cpu_capacity,
// which arm64 has, and x86 since Linux 6.12. Where all cores would be slow,
// none is.
func (s *sysfs) readEfficiency(t *Topology) error {
	for _, path := range efficientPMUs {
		cpus, _, err := s.list(path)
		if err != nil {
			return err
		}
		t.eachCore(cpus, func(c *Core) { c.Efficient = true })
	}
	if !t.anyEfficient() {
		if err := s.readCapacities(t); err != nil {
			return err
		}
	}
	for _, c := range t.Cores {
		if !c.Efficient {
			return nil
		}
	}
	t.eachCore(t.Online, func(c *Core) { c.Efficient = false })
	return nil
}

func (t *Topology) anyEfficient() bool {
	for _, c := range t.Cores {
		if c.Efficient {
			return true
		}
	}
	return false
}

// readCapacities asks the first CPU of each core, unless the first of them has
// nothing to tell.
func (s *sysfs) readCapacities(t *Topology) error {
	capacities := make([]int, len(t.Cores))
	fastest := 0
	for i, c := range t.Cores {
		n, found, err := s.number(fmt.Sprintf("%scpu%d/cpu_capacity", cpuDir, c.CPUs.Min()))
		if err != nil {
			return err
		}
		if !found && i == 0 {
			return nil
		}
		capacities[i] = n
		fastest = max(fastest, n)
	}
	for i := range t.Cores {
		// A core without the file counts as fast.
		known := capacities[i] > 0
		t.Cores[i].Efficient = known && capacities[i]*100 <= fastest*efficientShare
	}
	return nil
}
