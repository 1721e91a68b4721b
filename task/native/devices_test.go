package native

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/task"
)

// inUserNamespace is spec with a user namespace of its own, whose root is the
// host's id root.
func inUserNamespace(spec *specs.Spec, root uint32) *specs.Spec {
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: root, Size: 65536}}
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids, ids
	return spec
}

// A container's device nodes are its own root's, whatever was made before it.
func TestDevicesAfterAUserNamespace(t *testing.T) {
	runMapped(t, inUserNamespace(specOf(newID(), "sleep", "1000"), 100000))
	c := run(t, specOf(newID(), "sleep", "1000"))
	nodes := []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}
	got := c.output(append([]string{"stat", "-c", "%u:%g %a"}, nodes...)...)
	if want := strings.Repeat("0:0 666\n", len(nodes)); got != want {
		t.Errorf("owners and modes\n%s", got)
	}
}

// Containers that are made at the same time have each their own owner; the race
// detector sees what they share.
func TestDevicesOfContainersMadeAtOnce(t *testing.T) {
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			for range 50 {
				root := uint32(100000 * (1 + n))
				config, err := configOf(task.CreateRequest{ID: "c", Bundle: "/b", Spec: inUserNamespace(absolute(specOf("c", "true")), root)})
				if err != nil {
					t.Error(err)
					return
				}
				for _, d := range config.Devices {
					if d.Uid != root || d.Gid != root {
						t.Errorf("%s belongs to %d:%d, not to %d", d.Path, d.Uid, d.Gid, root)
					}
				}
			}
		})
	}
	all.Wait()
}

func absolute(spec *specs.Spec) *specs.Spec {
	spec.Root.Path = "/rootfs"
	return spec
}

// What is named is what libcontainer gives by itself: the same nodes and rules.
func TestNamedDevicesAreTheDefaults(t *testing.T) {
	major, minor := int64(10), int64(229)
	for name, edit := range map[string]func(*specs.Spec){
		"defaults":     func(*specs.Spec) {},
		"no resources": func(s *specs.Spec) { s.Linux.Resources = nil },
		"one more": func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: major, Minor: minor}}
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices,
				specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"})
		},
		"another null": func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 5}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := func() *specs.Spec { s := absolute(specOf("c", "true")); edit(s); return s }
			config, err := configOf(task.CreateRequest{ID: "c", Bundle: "/b", Spec: spec()})
			must(t, err)
			byItself, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: "c", Spec: spec()})
			must(t, err)
			if got, want := devicesOf(t, config), devicesOf(t, byItself); !slices.Equal(got, want) {
				t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// devicesOf are the nodes and the rules of a configuration, in any order.
func devicesOf(t *testing.T, c *configs.Config) (all []string) {
	t.Helper()
	add := func(v any) {
		data, err := json.Marshal(v)
		must(t, err)
		all = append(all, string(data))
	}
	for _, d := range c.Devices {
		// Of a node nobody asks whether it is allowed: the rules say that.
		node := *d
		node.Permissions, node.Allow = "", false
		add(node)
	}
	for _, r := range c.Cgroups.Resources.Devices {
		add(r)
	}
	slices.Sort(all)
	return all
}
