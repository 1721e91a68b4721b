package cgroups

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"containerd-shim-numa-v1/numa/cpuset"
)

func TestParentSlice(t *testing.T) {
	for _, c := range []struct {
		path, want string // "" is an error
	}{
		{"", "/system.slice"},
		{":runc:id", "/system.slice"},
		{"-.slice:runc:id", "/"},
		{"system.slice:docker:id", "/system.slice"},
		{"kubepods-burstable-pod1_2.slice:cri-containerd:id",
			"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"},
		{"/kubepods/pod1/id", ""},
		{"a:b", ""},
		{"a.slice:b:c:d", ""},
		{"a:b:c", ""},
		{"../a.slice:b:c", ""},
		{"a--b.slice:b:c", ""},
		{"-a.slice:b:c", ""},
		{".slice:b:c", ""},
	} {
		got, err := parentSlice(c.path)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%q: %q, %v; want %q", c.path, got, err, c.want)
		}
	}
}

func TestParentDir(t *testing.T) {
	for _, c := range []struct {
		path, want string
		systemd    bool
	}{
		{"/kubepods/pod1/id", "/r/kubepods/pod1", false},
		{"/id", "/r", false},
		{"/", "/r", false},
		{"/../../etc/id", "/r/etc", false},
		{"a-b.slice:x:id", "/r/a.slice/a-b.slice", true},
	} {
		if got, err := parentDir("/r", "cpuset", c.path, c.systemd); got != c.want || err != nil {
			t.Errorf("%q: %q, %v; want %q", c.path, got, err, c.want)
		}
	}
}

// TestParentEffective narrows a pod's cgroup and asks for those that are, or
// are to be, below it.
func TestParentEffective(t *testing.T) {
	pod, root, files := makeCpuset(t)
	below := strings.TrimPrefix(pod, root)
	rootCPUs, rootMems, err := files.read(root)
	if err != nil {
		t.Fatal(err)
	}
	// One CPU of the root's, which need not have the first.
	one := cpuset.Of(rootCPUs.Max())
	write(t, filepath.Join(pod, "cpuset.cpus"), one.String())
	write(t, filepath.Join(pod, "cpuset.mems"), cpuset.Of(rootMems.Min()).String())
	if err := os.Mkdir(filepath.Join(pod, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		cpus cpuset.Set
	}{
		{below + "/id", one},
		{below + "/missing/deeper/id", one},
		// On v1 it has no CPUs of its own yet, on v2 no file that says so.
		{below + "/empty/id", one},
		{below, rootCPUs},
		{"/id", rootCPUs},
		{below + "-missing/id", rootCPUs},
	} {
		cpus, mems, err := ParentEffective(c.path, false)
		if err != nil || !cpus.Equal(c.cpus) || !mems.IsSubset(rootMems) || mems.IsEmpty() {
			t.Errorf("%s: CPUs %q, nodes %q, %v; want CPUs %q", c.path, cpus, mems, err, c.cpus)
		}
	}
	// Relative to the cgroup of this process, which has all of its own CPUs.
	if cpus, mems, err := ParentEffective("id", false); err != nil || cpus.IsEmpty() || mems.IsEmpty() {
		t.Errorf("relative: CPUs %q, nodes %q, %v", cpus, mems, err)
	}
	if _, _, err := ParentEffective("not:systemd's", true); err == nil || !strings.Contains(err.Error(), `"not:systemd's"`) {
		t.Errorf("malformed: %v", err)
	}
}

// makeCpuset makes a cgroup with a cpuset, in the hierarchy that containers
// get theirs in.
func makeCpuset(t *testing.T) (dir, root string, files cpusetFiles) {
	t.Helper()
	v2, err := isV2()
	if err != nil {
		t.Fatal(err)
	}
	if v2 {
		_, dir := makeV2(t)
		if !exists(filepath.Join(dir, "cpuset.cpus")) {
			t.Skip("needs the cpuset controller for the children of the v2 root")
		}
		return dir, mountRoot, cpusetV2
	}
	_, dirs := makeV1(t, "cpuset")
	return dirs["cpuset"], filepath.Join(mountRoot, "cpuset"), cpusetV1
}
