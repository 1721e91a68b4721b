package placement

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// maxDevices is how many devices a container may have for their nodes to
	// matter: a privileged container has all of the host's.
	maxDevices = 32
	// vfioDir has a device for each IOMMU group that a container is given.
	vfioDir = "/dev/vfio/"

	numaNode = "numa_node"
)

// deviceNodes finds the memory nodes that a container's devices hang on, one
// for each device whose node sysfs knows.
func deviceNodes(sysfs fs.FS, spec *specs.Spec) []int {
	if spec.Linux == nil || len(spec.Linux.Devices) > maxDevices {
		return nil
	}
	var nodes []int
	for _, d := range spec.Linux.Devices {
		kind := map[string]string{"c": "char", "u": "char", "b": "block"}[d.Type]
		if kind == "" {
			continue
		}
		if group, ok := strings.CutPrefix(d.Path, vfioDir); ok {
			nodes = append(nodes, groupNodes(sysfs, group)...)
			continue
		}
		if n, ok := deviceNode(sysfs, fmt.Sprintf("dev/%s/%d:%d", kind, d.Major, d.Minor)); ok {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// deviceNode finds the node of the device that a link in sysfs leads to: that
// of the nearest device above it which has one.
func deviceNode(sysfs fs.FS, link string) (int, bool) {
	target, err := fs.ReadLink(sysfs, link)
	if err != nil {
		return 0, false
	}
	dir := path.Join(path.Dir(link), target)
	if !strings.HasPrefix(dir, "devices/") {
		return 0, false
	}
	for ; dir != "devices"; dir = path.Dir(dir) {
		if n, ok := readNode(sysfs, path.Join(dir, numaNode)); ok {
			return n, true
		}
	}
	return 0, false
}

// groupNodes are the nodes of the devices in an IOMMU group.
func groupNodes(sysfs fs.FS, group string) []int {
	if _, err := strconv.ParseUint(group, 10, 31); err != nil {
		return nil // /dev/vfio/vfio, which has no device
	}
	dir := path.Join("kernel/iommu_groups", group, "devices")
	entries, err := fs.ReadDir(sysfs, dir)
	if err != nil {
		return nil
	}
	var nodes []int
	for _, e := range entries[:min(len(entries), maxDevices)] {
		if n, ok := readNode(sysfs, path.Join(dir, e.Name(), numaNode)); ok {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// readNode reads a numa_node file: -1 is a device that no node is known of.
func readNode(sysfs fs.FS, name string) (int, bool) {
	text, err := fs.ReadFile(sysfs, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return n, err == nil && n >= 0
}
