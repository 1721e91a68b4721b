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
	return c.effective(cpusetV2.cpus, cpusetV1.cpus)
}

// EffectiveMems returns the memory nodes that the container's processes may
// use, with the errors of EffectiveCPUs.
func (c *Cgroup) EffectiveMems() (cpuset.Set, error) {
	return c.effective(cpusetV2.mems, cpusetV1.mems)
}

// IsV1 tells a cgroup whose effective CPUs and memory nodes are what it was
// given, less what has been offline since: cgroup v1. On v2 what comes back
// online is the cgroup's again.
func (c *Cgroup) IsV1() bool { return !c.v2 }

func (c *Cgroup) effective(v2File, v1File string) (cpuset.Set, error) {
	controller, name := unified, v2File
	if !c.v2 {
		controller, name = "cpuset", v1File
	}
	dir, ok := c.dirs[controller]
	if !ok {
		return cpuset.Set{}, fmt.Errorf("read effective cpuset: no cpuset controller: %w", fs.ErrNotExist)
	}
	set, err := readSet(filepath.Join(dir, name))
	if err != nil {
		return cpuset.Set{}, fmt.Errorf("read effective cpuset: %w", err)
	}
	return set, nil
}

// readSet reads a file with one list.
func readSet(file string) (cpuset.Set, error) {
	text, err := readFile(file)
	if err != nil {
		return cpuset.Set{}, err
	}
	set, err := cpuset.Parse(string(text))
	if err != nil {
		return cpuset.Set{}, fmt.Errorf("%s: %w", file, err)
	}
	return set, nil
}
