package native

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/opencontainers/runc/libcontainer/capabilities"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runc/libcontainer/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// The annotations under which runc tells what it is made of
// (runc, docs/spec-conformance and `runc features`).
const (
	annotationVersion    = "org.opencontainers.runc.version"
	annotationCheckpoint = "org.opencontainers.runc.checkpoint.enabled"
	annotationLibseccomp = "io.github.seccomp.libseccomp.version"
)

// minOCIVersion is the oldest runtime-spec that libcontainer takes.
const minOCIVersion = "1.0.0"

// Features tells what containers of this engine may ask for (runtime-spec,
// features.md), from what the embedded libcontainer says of itself.
func Features() *features.Features {
	yes, no := true, false
	f := &features.Features{
		OCIVersionMin: minOCIVersion,
		OCIVersionMax: specs.Version,
		Hooks:         configs.KnownHookNames(),
		MountOptions:  specconv.KnownMountOptions(),
		Annotations: map[string]string{
			annotationVersion:    LibcontainerVersion(),
			annotationCheckpoint: fmt.Sprint(yes),
		},
		PotentiallyUnsafeConfigAnnotations: []string{"bundle", "org.systemd.property.", "org.criu.config"},
		Linux: &features.Linux{
			Namespaces:      specconv.KnownNamespaces(),
			Capabilities:    capabilities.KnownCapabilities(),
			Cgroup:          &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &no, Rdma: &yes},
			Seccomp:         &features.Seccomp{Enabled: &no},
			Apparmor:        &features.Apparmor{Enabled: &yes},
			Selinux:         &features.Selinux{Enabled: &yes},
			IntelRdt:        &features.IntelRdt{Enabled: &yes, Schemata: &yes, Monitoring: &yes},
			MemoryPolicy:    &features.MemoryPolicy{Modes: specconv.KnownMemoryPolicyModes(), Flags: specconv.KnownMemoryPolicyFlags()},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			NetDevices:      &features.NetDevices{Enabled: &yes},
		},
	}
	if seccomp.Enabled {
		major, minor, patch := seccomp.Version()
		f.Annotations[annotationLibseccomp] = fmt.Sprintf("%d.%d.%d", major, minor, patch)
		f.Linux.Seccomp = &features.Seccomp{
			Enabled: &yes, Actions: seccomp.KnownActions(), Operators: seccomp.KnownOperators(),
			Archs: seccomp.KnownArchs(), KnownFlags: seccomp.KnownFlags(), SupportedFlags: seccomp.SupportedFlags(),
		}
	}
	return f
}

// libcontainerModule is the module that libcontainer comes from.
const libcontainerModule = "github.com/opencontainers/runc"

// LibcontainerVersion is the version of the embedded libcontainer, such as
// "1.5.2": what a security advisory of runc's has to be compared with.
func LibcontainerVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == libcontainerModule {
				return strings.TrimPrefix(m.Version, "v")
			}
		}
	}
	return "unknown"
}
