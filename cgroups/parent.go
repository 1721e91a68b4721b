package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"containerd-shim-numa-v1/numa/cpuset"
)

// cpusetFiles are the names of the files with a cgroup's effective CPUs and
// memory nodes, cpuset(7) and cgroup-v2.rst of the kernel.
type cpusetFiles struct{ cpus, mems string }

var (
	cpusetV1 = cpusetFiles{cpus: "cpuset.effective_cpus", mems: "cpuset.effective_mems"}
	cpusetV2 = cpusetFiles{cpus: "cpuset.cpus.effective", mems: "cpuset.mems.effective"}
)

// ParentEffective returns the CPUs and memory nodes that a container may be
// given at most: the effective ones of the cgroup that its own will be made
// in, or of the nearest ancestor that exists and has a cpuset. A cpuset outside
// of them is not refused by the kernel but, on v2, ignored.
//
// cgroupsPath is that of the runtime-spec, config-linux.md, as libcontainer
// reads it: absolute below the root of the hierarchy, relative to the caller's
// own cgroup (on v2 to the parent of that), with systemd "slice:prefix:name",
// and "" for the runtime's default. The error wraps fs.ErrNotExist where no
// cpuset controller is mounted that a container could be given.
func ParentEffective(cgroupsPath string, systemd bool) (cpus, mems cpuset.Set, err error) {
	cpus, mems, err = parentEffective(cgroupsPath, systemd)
	if err != nil {
		return cpus, mems, fmt.Errorf("read effective cpuset above cgroup %q: %w", cgroupsPath, err)
	}
	return cpus, mems, nil
}

func parentEffective(cgroupsPath string, systemd bool) (cpus, mems cpuset.Set, err error) {
	v2, err := isV2()
	if err != nil {
		return cpus, mems, err
	}
	controller, files := unified, cpusetV2
	if !v2 {
		controller, files = "cpuset", cpusetV1
	}
	root, err := findDir(controller, "/")
	if err != nil {
		return cpus, mems, err
	}
	dir, err := parentDir(root, controller, cgroupsPath, systemd)
	if err != nil {
		return cpus, mems, err
	}
	for {
		cpus, mems, err = files.read(dir)
		// On v1 a cgroup has no CPUs until it is given some, which the
		// runtime does from the cgroup above.
		unset := err == nil && (cpus.IsEmpty() || mems.IsEmpty())
		if !unset && !errors.Is(err, fs.ErrNotExist) || dir == root {
			return cpus, mems, err
		}
		dir = filepath.Dir(dir)
	}
}

// parentDir is the directory that a container's cgroup is to be made in. It
// is root or below it, and need not exist.
func parentDir(root, controller, cgroupsPath string, systemd bool) (string, error) {
	if systemd {
		slice, err := parentSlice(cgroupsPath)
		return filepath.Join(root, slice), err
	}
	// Clean leaves no ".." behind a leading "/".
	below := filepath.Dir(filepath.Clean("/" + cgroupsPath))
	if filepath.IsAbs(cgroupsPath) {
		return filepath.Join(root, below), nil
	}
	membership, err := readFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	own, err := parseMembership(membership)
	if err != nil {
		return "", err
	}
	dir, err := findDir(controller, own[controller])
	if err != nil {
		return "", err
	}
	if controller == unified && dir != root {
		dir = filepath.Dir(dir) // a v2 cgroup with processes cannot have children with controllers
	}
	if below := filepath.Join(dir, below); isWithin(root, below) {
		return below, nil
	}
	return root, nil
}

func isWithin(root, dir string) bool {
	return dir == root || strings.HasPrefix(dir, root+"/")
}

// defaultSlice is where libcontainer has systemd make a scope without a place.
const defaultSlice = "system.slice"

// parentSlice is the path of the slice in a systemd cgroupsPath: a-b.slice is
// in a.slice, systemd.slice(5).
func parentSlice(cgroupsPath string) (string, error) {
	slice := defaultSlice
	if cgroupsPath != "" {
		parts := strings.Split(cgroupsPath, ":")
		if len(parts) != 3 {
			return "", errors.New("not of the form slice:prefix:name")
		}
		if parts[0] != "" {
			slice = parts[0]
		}
	}
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || strings.Contains(name, "/") {
		return "", fmt.Errorf("%q is not the name of a slice", slice)
	}
	if name == "-" {
		return "/", nil
	}
	path, prefix := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", fmt.Errorf("%q is not the name of a slice", slice)
		}
		prefix += part
		path = filepath.Join(path, prefix+".slice")
		prefix += "-"
	}
	return path, nil
}

// read reads both files of the cgroup directory dir.
func (f cpusetFiles) read(dir string) (cpus, mems cpuset.Set, err error) {
	if cpus, err = readSet(filepath.Join(dir, f.cpus)); err != nil {
		return cpus, mems, err
	}
	mems, err = readSet(filepath.Join(dir, f.mems))
	return cpus, mems, err
}
