package cgroups

import (
	"fmt"
	"io/fs"
	"path/filepath"

	"containerd-shim-numa-v1/numa/cpuset"
)

// EffectiveCPUs returns the CPUs that the container's processes may run on, as
// the kernel left them after its parents and CPU hotplug: cpuset(7). The error
// wraps fs.ErrNotExist without a cpuset controller.
func (c *Cgroup) EffectiveCPUs() (cpuset.Set, error) {
	return c.effective("cpuset.cpus.effective", "cpuset.effective_cpus")
}

// EffectiveMems returns the memory nodes that the container's processes may
// use, with the errors of EffectiveCPUs.
func (c *Cgroup) EffectiveMems() (cpuset.Set, error) {
	return c.effective("cpuset.mems.effective", "cpuset.effective_mems")
}

func (c *Cgroup) effective(v2File, v1File string) (cpuset.Set, error) {
	controller, name := unified, v2File
	if !c.v2 {
		controller, name = "cpuset", v1File
	}
	dir, ok := c.dirs[controller]
	if !ok {
		return cpuset.Set{}, fmt.Errorf("read effective cpuset: no cpuset controller: %w", fs.ErrNotExist)
	}
	file := filepath.Join(dir, name)
	text, err := readFile(file)
	if err != nil {
		return cpuset.Set{}, fmt.Errorf("read effective cpuset: %w", err)
	}
	set, err := cpuset.Parse(string(text))
	if err != nil {
		return cpuset.Set{}, fmt.Errorf("read effective cpuset from %s: %w", file, err)
	}
	return set, nil
}
