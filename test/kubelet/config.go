package kubelet

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"containerd-shim-numa-v1/test/rig"
)

// Registration is one way to tell containerd's CRI of a shim.
type Registration struct {
	Type    string // runtime_type
	Path    string // runtime_path; "" for containerd's PATH
	Options string // the options table's lines in TOML; "" for no table
}

// hostAttach is a setting whose effect is seen from outside: the host's mount
// table.
const hostAttach = "[rootfs]\nattach = \"host\"\n"

// Registrations are the ways to register a shim, by name. The shim is in dir;
// settings are written below the machine's directory.
func Registrations(m *rig.Machine, dir string) (map[string]Registration, error) {
	settings := filepath.Join(m.Dir, "settings.toml")
	if err := os.WriteFile(settings, []byte(hostAttach), 0o644); err != nil {
		return nil, err
	}
	const systemd = "SystemdCgroup = false"
	return map[string]Registration{
		"numa": {Type: rig.OurRuntime},
		"configpath": {Type: rig.OurRuntime,
			Options: fmt.Sprintf("TypeUrl = \"runtimeoptions.v1.Options\"\nConfigPath = %q", settings)},
		"inline":    {Type: rig.OurRuntime, Options: `rootfs = { attach = "host" }`},
		"runc":      {Type: rig.RuncRuntime, Path: filepath.Join(dir, rig.ShimBinary(rig.OurRuntime)), Options: systemd},
		"reference": {Type: rig.RuncRuntime, Options: systemd},
	}, nil
}

// podNetwork is where pods are that have a network of their own.
const podNetwork = "10.88.0.0/16"

// bridgeNetwork is that network's configuration. Its leases are in /run, where
// the rig's census counts them.
const bridgeNetwork = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": "pods0", "isGateway": true,
    "ipam": {
      "type": "host-local", "dataDir": "/run/cni-leases",
      "ranges": [[{"subnet": "` + podNetwork + `"}]], "routes": [{"dst": "0.0.0.0/0"}]
    }
  }]
}`

// annotations are those of a pod that containerd passes on to a shim.
const annotations = "numa.containerd.io/*"

// configure writes the network's configuration below the machine's directory
// and returns the CRI plugins' part of containerd's. 1.7 has one plugin where
// 2.x has two.
func configure(m *rig.Machine, plugins string, handlers map[string]Registration) (string, error) {
	networks := filepath.Join(m.Dir, "cni")
	if err := os.MkdirAll(networks, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(networks, "10-pods.conflist"), []byte(bridgeNetwork), 0o644); err != nil {
		return "", err
	}
	var toml strings.Builder
	plugin, binaries := "io.containerd.cri.v1.runtime", fmt.Sprintf("bin_dirs = [%q]", plugins)
	if strings.HasPrefix(m.Version, "1.") {
		plugin, binaries = "io.containerd.grpc.v1.cri", fmt.Sprintf("bin_dir = %q", plugins)
	}
	// Without CAP_SYS_RESOURCE a pod's oom_score_adj of -998 can't be set.
	fmt.Fprintf(&toml, "[plugins.%q]\n  restrict_oom_score_adj = true\n  disable_apparmor = true\n", plugin)
	if strings.HasPrefix(m.Version, "1.") {
		fmt.Fprintf(&toml, "  sandbox_image = %q\n", PauseImage)
	} else {
		fmt.Fprintf(&toml, "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\n  sandbox = %q\n", PauseImage)
	}
	fmt.Fprintf(&toml, "[plugins.%q.cni]\n  %s\n  conf_dir = %q\n", plugin, binaries, networks)
	// The default one has to exist: 1.7 merges no table with its own.
	names := slices.Sorted(maps.Keys(handlers))
	fmt.Fprintf(&toml, "[plugins.%q.containerd]\n  default_runtime_name = %q\n", plugin, names[0])
	for _, name := range names {
		r := handlers[name]
		fmt.Fprintf(&toml, "[plugins.%q.containerd.runtimes.%s]\n  runtime_type = %q\n", plugin, name, r.Type)
		fmt.Fprintf(&toml, "  pod_annotations = [%q]\n", annotations)
		if r.Path != "" {
			fmt.Fprintf(&toml, "  runtime_path = %q\n", r.Path)
		}
		if r.Options != "" {
			fmt.Fprintf(&toml, "[plugins.%q.containerd.runtimes.%s.options]\n%s\n", plugin, name, r.Options)
		}
	}
	return toml.String(), nil
}
