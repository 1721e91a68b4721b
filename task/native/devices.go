package native

import (
	"slices"

	"github.com/opencontainers/runc/libcontainer/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// nameDevices writes the devices into the spec that libcontainer gives to every
// container, each with the rule that allows it, unless the spec has its own.
//
// Left to the converter, all containers of the process would share them: it
// notes in them the owner of the nodes, which is the root of a container's user
// namespace, and the next container without one has nodes of that owner.
func nameDevices(spec *specs.Spec) {
	if spec.Linux == nil {
		return
	}
	named := slices.Clone(spec.Linux.Devices)
	var rules []specs.LinuxDeviceCgroup
	for _, d := range specconv.AllowedDevices {
		has := func(o specs.LinuxDevice) bool { return o.Path == d.Path }
		if d.Path == "" || slices.ContainsFunc(named, has) {
			continue // without a path it is a rule alone
		}
		mode := d.FileMode
		named = append(named, specs.LinuxDevice{
			Path: d.Path, Type: string(d.Type), Major: d.Major, Minor: d.Minor, FileMode: &mode,
		})
		major, minor := d.Major, d.Minor
		rules = append(rules, specs.LinuxDeviceCgroup{
			Allow: d.Allow, Type: string(d.Type), Major: &major, Minor: &minor, Access: string(d.Permissions),
		})
	}
	var resources specs.LinuxResources
	if spec.Linux.Resources != nil {
		resources = *spec.Linux.Resources
	}
	resources.Devices = append(slices.Clone(resources.Devices), rules...)
	spec.Linux.Devices, spec.Linux.Resources = named, &resources
}
