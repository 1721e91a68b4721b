package numa

import (
	"fmt"

	"containerd-shim-numa-v1/numa/cpuset"
)

const (
	// maxCaches bounds the caches of one CPU that are looked at: level 1 has
	// two, and nobody builds more than level 4.
	maxCaches = 8
	// usualLast is the index of level 3, after two of level 1 and one of level
	// 2.
	usualLast = 3
	// sharedLevel is the level from which on a cache is a last level that the
	// kernel would tell of. A level 2 that a core has for itself means that
	// the caches behind it are not known (Ampere Altra).
	sharedLevel = 3
)

// readCaches fills t.Caches and Core.Cache. The first CPU of each cache is
// asked. Caches are told apart by their CPUs: "id" is missing on arm64 and
// differs between CPUs of one cache on some virtual machines.
func (s *sysfs) readCaches(t *Topology) error {
	for i := range t.Cores {
		if t.Cores[i].Cache >= 0 {
			continue
		}
		cpu := t.Cores[i].CPUs.Min()
		level, shared, err := s.lastLevel(cpu)
		if err != nil {
			return err
		}
		// Whole cores, even where the kernel knows better.
		var members []*Core
		var cpus cpuset.Set
		for j := i; j < len(t.Cores); j++ {
			c := &t.Cores[j]
			if j == i || c.Cache < 0 && shared.Contains(c.CPUs.Min()) {
				members = append(members, c)
				cpus = cpus.Union(c.CPUs)
			}
		}
		if level < sharedLevel && len(members) == 1 {
			continue
		}
		for _, c := range members {
			c.Cache = len(t.Caches)
		}
		t.Caches = append(t.Caches, Cache{CPUs: cpus, Node: t.Cores[i].Node})
	}
	return nil
}

// lastLevel finds the cache of the highest level that cpu loads data through,
// and which CPUs share it. The level is 0 if the kernel does not tell. The
// kernel numbers the caches of a CPU by ascending level, and each file costs:
// the search starts where the last one usually is.
func (s *sysfs) lastLevel(cpu int) (level int, shared cpuset.Set, err error) {
	last := -1
	holdsData := func(i int) (found bool, err error) {
		kind, found, err := s.text(cacheDir(cpu, i) + "type")
		if kind == "Unified" || kind == "Data" {
			last = i
		}
		return found, err
	}
	found := true
	for i := usualLast; found && i < maxCaches && err == nil; i++ {
		found, err = holdsData(i)
	}
	for i := usualLast - 1; last < 0 && i >= 0 && err == nil; i-- {
		_, err = holdsData(i)
	}
	if err != nil || last < 0 {
		return 0, cpuset.Set{}, err
	}
	if level, _, err = s.number(cacheDir(cpu, last) + "level"); err != nil {
		return 0, cpuset.Set{}, err
	}
	if shared, _, err = s.list(cacheDir(cpu, last) + "shared_cpu_list"); err != nil {
		return 0, cpuset.Set{}, err
	}
	return level, shared, nil
}

func cacheDir(cpu, index int) string {
	return fmt.Sprintf("%scpu%d/cache/index%d/", cpuDir, cpu, index)
}
