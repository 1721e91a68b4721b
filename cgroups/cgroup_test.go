package cgroups

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"containerd-shim-numa-v1/numa/cpuset"
)

func TestParseMembership(t *testing.T) {
	for _, c := range []struct {
		text string
		want map[string]string // nil: an error
	}{
		{"0::/kubepods.slice/pod1/cri-containerd-1.scope\n", map[string]string{"": "/kubepods.slice/pod1/cri-containerd-1.scope"}},
		{"4:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/\n", map[string]string{"cpu": "/a", "cpuacct": "/a", "name=systemd": "/b", "": "/"}},
		{"3:memory:/with:colon\n", map[string]string{"memory": "/with:colon"}},
		{"", map[string]string{}},
		{"nonsense\n", nil},
		{"1:cpu\n", nil},
		{"1:cpu:relative\n", nil},
	} {
		got, err := parseMembership([]byte(c.text))
		if (err != nil) != (c.want == nil) || !maps.Equal(got, c.want) {
			t.Errorf("%q: %v, %v", c.text, got, err)
		}
	}
}

func TestParseCgroupMounts(t *testing.T) {
	const mountinfo = `25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 25 0:26 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct
31 25 0:27 / /sys/fs/cgroup/unified rw shared:9 master:3 - cgroup2 cgroup2 rw,nsdelegate
garbage
`
	mounts := parseCgroupMounts([]byte(mountinfo))
	if len(mounts) != 2 {
		t.Fatalf("%+v", mounts)
	}
	if m := mounts[0]; m.root != "/docker/abc" || m.point != "/sys/fs/cgroup/cpu,cpuacct" || !m.has("cpuacct") || m.has("memory") || m.has(unified) {
		t.Errorf("%+v", m)
	}
	if m := mounts[1]; m.root != "/" || !m.has(unified) || m.has("cpu") {
		t.Errorf("%+v", m)
	}
}

func TestLoadPaths(t *testing.T) {
	// libcontainer's map on a hybrid host.
	c := load(t, map[string]string{"": "/u/x", "memory": "/m/x", "pids": "/p/x/", "name=systemd": "/s/x"})
	if c.v2 || c.processes != "/p/x" || len(c.dirs) != 2 {
		t.Errorf("%+v", c.dirs)
	}
	for _, bad := range []map[string]string{nil, {"name=systemd": "/s"}, {"memory": "m"}} {
		if c, err := LoadPaths(bad); err == nil {
			t.Errorf("%v: %+v", bad, c)
		}
	}
}

func TestLoadOfTheGone(t *testing.T) {
	cmd := start(t, "exit 0")
	eventually(t, "it is a zombie", func() bool {
		stat, _ := os.ReadFile("/proc/" + pid(cmd) + "/stat")
		return strings.Contains(string(stat), ") Z ")
	})
	for range 2 { // a zombie, then nothing
		if c, err := Load(cmd.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v, %v", c, err)
		}
		cmd.Wait()
	}
	if _, err := findDir(unified, "/../other"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a cgroup outside of the namespace: %v", err)
	}
}

// TestFindDirByMounts looks for a cgroup as a process sees it whose hierarchy
// is mounted elsewhere.
func TestFindDirByMounts(t *testing.T) {
	_, dirs := makeV1(t, "memory")
	path := strings.TrimPrefix(dirs["memory"], mountRoot+"/memory")
	if dir, err := findDir("memory", path); err != nil || dir != dirs["memory"] {
		t.Errorf("%q, %v", dir, err)
	}
	if dir, err := findDir("memory", path+"-gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%q, %v", dir, err)
	}
	if exists(filepath.Join(mountRoot, "unified")) {
		// Not below mountRoot as v2's usual place says, so that only the
		// mounts tell.
		_, dir := makeV2(t)
		got, err := findDir(unified, strings.TrimPrefix(dir, mountRoot+"/unified"))
		if err != nil || got != dir {
			t.Errorf("%q, %v, want %q", got, err, dir)
		}
	}
}

// TestEnableControllers enables what the v2 root has, which on a hybrid host
// are the controllers that no v1 hierarchy took.
func TestEnableControllers(t *testing.T) {
	_, pod := makeV2(t)
	root := filepath.Dir(pod)
	available := fields(t, root, "cgroup.controllers")
	before := fields(t, root, "cgroup.subtree_control")
	if len(available) == 0 {
		t.Skip("needs a controller in the v2 hierarchy")
	}
	container := filepath.Join(pod, "container")
	if err := os.Mkdir(container, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the pod is removed, after which the root can be restored
		removeTree(t, pod)
		for _, controller := range available {
			if !slices.Contains(before, controller) {
				write(t, filepath.Join(root, "cgroup.subtree_control"), "-"+controller)
			}
		}
	})
	c := load(t, map[string]string{unified: container})
	for range 2 {
		if err := c.EnableControllers(); err != nil {
			t.Fatal(err)
		}
		if got := fields(t, container, "cgroup.controllers"); !slices.Equal(got, available) {
			t.Errorf("the container has %q, the root %q", got, available)
		}
		if got := fields(t, container, "cgroup.subtree_control"); len(got) != 0 {
			t.Errorf("enabled below the container: %q", got)
		}
	}
	v1 := load(t, map[string]string{"memory": "/nowhere"})
	if err := v1.EnableControllers(); err != nil {
		t.Errorf("v1: %v", err)
	}
	gone := load(t, map[string]string{unified: filepath.Join(root, "cgroups-test-gone", "container")})
	if err := gone.EnableControllers(); err != nil {
		t.Errorf("without a parent: %v", err)
	}
}

func fields(t *testing.T, dir, file string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

func TestEffectiveCPUs(t *testing.T) {
	c, dirs := makeV1(t, "cpuset")
	write(t, filepath.Join(dirs["cpuset"], "cpuset.cpus"), "0")
	write(t, filepath.Join(dirs["cpuset"], "cpuset.mems"), "0")
	if cpus, err := c.EffectiveCPUs(); err != nil || !cpus.Equal(cpuset.Of(0)) {
		t.Errorf("CPUs %q, %v", cpus, err)
	}
	if mems, err := c.EffectiveMems(); err != nil || !mems.Equal(cpuset.Of(0)) {
		t.Errorf("nodes %q, %v", mems, err)
	}
	v2 := t.TempDir()
	write(t, filepath.Join(v2, "cpuset.cpus.effective"), "0-3,8\n")
	if cpus, err := load(t, map[string]string{unified: v2}).EffectiveCPUs(); err != nil || cpus.String() != "0-3,8" {
		t.Errorf("v2: %q, %v", cpus, err)
	}
	if _, err := load(t, map[string]string{"memory": v2}).EffectiveCPUs(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the controller: %v", err)
	}
}
