package numa

import (
	"fmt"

	"containerd-shim-numa-v1/numa/cpuset"
)

func topologyDir(cpu int) string { return fmt.Sprintf("%scpu%d/topology/", cpuDir, cpu) }

// readCores fills t.Cores with CPUs and nodes. One CPU of each core is asked,
// and cores are told apart by their CPUs: core_id is unique within a package at
// best.
func (s *sysfs) readCores(t *Topology) error {
	nodeOf := make([]int, t.Online.Max()+1)
	for i, n := range t.Nodes {
		for cpu := range n.CPUs.All() {
			nodeOf[cpu] = i
		}
	}
	unclaimed := t.Online
	for cpu := range t.Online.All() {
		if !unclaimed.Contains(cpu) {
			continue
		}
		// core_cpus_list is the name since Linux 5.3.
		siblings, err := s.firstList(topologyDir(cpu), "core_cpus_list", "thread_siblings_list")
		if err != nil {
			return err
		}
		c := Core{Node: nodeOf[cpu], Cache: -1}
		c.CPUs = siblings.Union(cpuset.Of(cpu)).Intersect(unclaimed).Intersect(t.Nodes[c.Node].CPUs)
		unclaimed = unclaimed.Difference(c.CPUs)
		t.Cores = append(t.Cores, c)
		t.ThreadsPerCore = max(t.ThreadsPerCore, c.CPUs.Len())
	}
	return nil
}

// readPackages fills in the packages and dies of cores and nodes. One CPU of
// each package and die is asked.
func (s *sysfs) readPackages(t *Topology) error {
	var inPackage, inDie cpuset.Set // CPUs whose package and die are known
	for i := range t.Cores {
		cpu := t.Cores[i].CPUs.Min()
		dir := topologyDir(cpu)
		if !inPackage.Contains(cpu) {
			// package_cpus_list is the name since Linux 5.3.
			members, err := s.firstList(dir, "package_cpus_list", "core_siblings_list")
			if err != nil {
				return err
			}
			id, _, err := s.number(dir + "physical_package_id")
			if err != nil {
				return err
			}
			members = members.Union(cpuset.Of(cpu)).Difference(inPackage)
			inPackage = inPackage.Union(members)
			t.eachCore(members, func(c *Core) { c.Package = id })
		}
		if !inDie.Contains(cpu) {
			// Before Linux 5.2, and on arm64 still, a package is one die.
			members, found, err := s.list(dir + "die_cpus_list")
			if err != nil {
				return err
			}
			if !found {
				members = inPackage
			}
			id, _, err := s.number(dir + "die_id")
			if err != nil {
				return err
			}
			members = members.Union(cpuset.Of(cpu)).Difference(inDie)
			inDie = inDie.Union(members)
			t.eachCore(members, func(c *Core) { c.Die = id })
		}
	}
	for i := range t.Nodes {
		t.Nodes[i].Package = t.packageOf(t.Nodes[i].CPUs.Min())
	}
	return nil
}

// eachCore calls set for the cores whose first CPU is among cpus.
func (t *Topology) eachCore(cpus cpuset.Set, set func(*Core)) {
	for i := range t.Cores {
		if cpus.Contains(t.Cores[i].CPUs.Min()) {
			set(&t.Cores[i])
		}
	}
}

// packageOf is the package of a CPU, -1 if it is not online.
func (t *Topology) packageOf(cpu int) int {
	for _, c := range t.Cores {
		if c.CPUs.Contains(cpu) {
			return c.Package
		}
	}
	return -1
}
