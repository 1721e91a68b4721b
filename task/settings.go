package task

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"containerd-shim-numa-v1/rootfs"
	"containerd-shim-numa-v1/task/placement"
)

// SettingsPath is where a node's settings are read from if a runtime's
// options do not say otherwise.
const SettingsPath = "/etc/containerd-shim-numa/config.toml"

// maxSettingsSize bounds a settings file, in bytes.
const maxSettingsSize = 64 << 10

// Settings are what an operator decides for a node, or in a runtime's options
// for all of its containers. docs/configuration.md describes each.
type Settings struct {
	// Root is the directory under which the engine keeps the state of
	// containers, one directory per namespace. Empty: "runc" beside the
	// bundles' directory, which is /run/containerd/runc by default, so that
	// `runc --root /run/containerd/runc/<namespace> list` sees them.
	Root    string          `toml:"root"`
	Runtime RuntimeSettings `toml:"runtime"`
	Rootfs  RootfsSettings  `toml:"rootfs"`
	// Placement says where on the machine containers run.
	Placement placement.Settings `toml:"placement"`
}

// RootfsSettings say how root filesystems are made.
type RootfsSettings struct {
	// Attach is AttachAuto (also if empty) or AttachHost.
	Attach string `toml:"attach"`
	// Tier is the way in which overlays are mounted: a name that
	// rootfs.ParseTier knows, or empty for the best that the kernel has.
	Tier string `toml:"tier"`
	// SharedBase: the containers of a pod that have the same image share one
	// read-only overlay of its layers.
	SharedBase bool `toml:"shared-base"`
	// Claims: containerd leaves the mounts of the erofs snapshotter, and
	// transforms, to the shim. It asks before there is a container, so only
	// the node's settings count.
	Claims bool `toml:"claims"`
}

// MountClaims are the mount types and transforms that containerd shall leave
// to the shim.
func (s Settings) MountClaims() (mountTypes, transforms []string) {
	if !s.Rootfs.Claims {
		return nil, nil
	}
	return rootfs.Claims()
}

// tier is the value of Tier, which parse has checked.
func (r RootfsSettings) tier() rootfs.Tier {
	t, err := rootfs.ParseTier(r.Tier)
	if err != nil {
		return rootfs.Auto
	}
	return t
}

// The values of RootfsSettings.Attach.
const (
	// AttachAuto attaches a root filesystem in the container's own mount
	// namespace unless something has to see it on the host.
	AttachAuto = "auto"
	// AttachHost always attaches it on the host, below the bundle.
	AttachHost = "host"
)

// ReadSettings reads the settings in the file path; those of a file that does
// not exist are the defaults.
func ReadSettings(path string) (Settings, error) {
	data, err := readFile(path, maxSettingsSize)
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, nil
	}
	if err != nil {
		return Settings{}, fmt.Errorf("settings: %w", err)
	}
	s, err := Settings{}.parse(data)
	if err != nil {
		return Settings{}, fmt.Errorf("settings %s: %w", path, err)
	}
	return s, nil
}

// parse returns s with what the TOML document data sets. A key that there is
// not is an error: a setting that is silently without effect is worse.
func (s Settings) parse(data []byte) (Settings, error) {
	s.Placement = s.Placement.Clone() // the decoder writes into what is there
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&s)
	var unknown *toml.StrictMissingError
	switch {
	case errors.As(err, &unknown):
		var keys []string
		for _, e := range unknown.Errors {
			keys = append(keys, strings.Join(e.Key(), "."))
		}
		return s, invalid("unknown keys %s", strings.Join(keys, ", "))
	case err != nil:
		return s, invalid("%v", err)
	}
	switch s.Rootfs.Attach {
	case "", AttachAuto, AttachHost:
	default:
		return s, invalid("rootfs.attach %q is neither %q nor %q", s.Rootfs.Attach, AttachAuto, AttachHost)
	}
	if s.Rootfs.Tier != "" {
		if _, err := rootfs.ParseTier(s.Rootfs.Tier); err != nil {
			return s, invalid("rootfs.tier: %v", err)
		}
	}
	if err := s.Placement.Check(); err != nil {
		return s, fmt.Errorf("placement.%w", err)
	}
	if err := s.Runtime.check(); err != nil {
		return s, invalid("runtime.binary %v", err)
	}
	if s.Root != "" && !filepath.IsAbs(s.Root) {
		return s, invalid("root %q is not an absolute path", s.Root)
	}
	return s, nil
}

// Options are the settings in force for one container, with those that only
// runc's options have.
type Options struct {
	Settings
	NoPivotRoot   bool
	NoNewKeyring  bool
	SystemdCgroup bool
	// IOUID and IOGID own the container's pipes on the host; 0 is the
	// container's root.
	IOUID, IOGID uint32
	// CriuWork is the directory of criu's log and statistics of a restore, kept
	// when it is done. Empty: one in the bundle, which is not.
	CriuWork string
}

// with applies the options that containerd sent with a request to the node's
// settings. They come in three shapes: none; containerd.runc.v1.Options, from
// clients that take the shim for runc's; runtimeoptions.v1.Options with TOML
// in ConfigBody or in the file ConfigPath.
func (s Settings) with(any *anypb.Any) (Options, error) {
	o := Options{Settings: s}
	if any == nil || any.TypeUrl == "" {
		return o, nil
	}
	switch any.MessageName() {
	case (*runcoptions.Options)(nil).ProtoReflect().Descriptor().FullName():
		var r runcoptions.Options
		if err := any.UnmarshalTo(&r); err != nil {
			return o, invalid("runtime options: %v", err)
		}
		return o.withRunc(&r)
	case (*runtimeoptions.Options)(nil).ProtoReflect().Descriptor().FullName():
		var r runtimeoptions.Options
		if err := any.UnmarshalTo(&r); err != nil {
			return o, invalid("runtime options: %v", err)
		}
		return o.withRuntime(&r)
	case v1Options:
		return o.withV1(any.Value)
	}
	return o, invalid("runtime options of type %q", any.TypeUrl)
}

func (o Options) withRunc(r *runcoptions.Options) (Options, error) {
	if r.GetBinaryName() != "" {
		o.Runtime.Binary = r.BinaryName
		if err := o.Runtime.check(); err != nil {
			return o, invalid("runtime options: binary_name %v", err)
		}
	}
	if r.GetRoot() != "" {
		if !filepath.IsAbs(r.Root) {
			return o, invalid("runtime options: root %q is not an absolute path", r.Root)
		}
		o.Root = r.Root
	}
	o.NoPivotRoot, o.NoNewKeyring, o.SystemdCgroup = r.NoPivotRoot, r.NoNewKeyring, r.SystemdCgroup
	o.IOUID, o.IOGID = r.IoUid, r.IoGid
	if r.CriuWorkPath != "" && !filepath.IsAbs(r.CriuWorkPath) {
		return o, invalid("runtime options: criu_work_path %q is not an absolute path", r.CriuWorkPath)
	}
	o.CriuWork = r.CriuWorkPath
	return o, nil
}

func (o Options) withRuntime(r *runtimeoptions.Options) (Options, error) {
	body, from := r.ConfigBody, "config_body"
	if r.ConfigPath != "" {
		from = r.ConfigPath
		var err error
		if body, err = readFile(r.ConfigPath, maxSettingsSize); err != nil {
			return o, fmt.Errorf("runtime options: config_path: %w", err)
		}
	}
	s, err := o.Settings.parse(body)
	if err != nil {
		return o, fmt.Errorf("runtime options: %s: %w", from, err)
	}
	if s.Rootfs.Claims != o.Rootfs.Claims {
		return o, invalid("runtime options: %s: rootfs.claims has an effect in %s only", from, SettingsPath)
	}
	if key := s.Placement.NodeOnly(o.Placement); key != "" {
		return o, invalid("runtime options: %s: placement.%s has an effect in %s only", from, key, SettingsPath)
	}
	o.Settings = s
	return o, nil
}

// bundlesDir is the directory, below containerd's state directory, that holds
// bundles as <namespace>/<id>.
const bundlesDir = "io.containerd.runtime.v2.task"

// defaultRoot is where the runc shim keeps its containers' state.
const defaultRoot = "/run/containerd/runc"

// root is the directory of the engine's state for containers of a namespace.
func (o Options) root(namespace, bundle string) string {
	if o.Root != "" {
		return filepath.Join(o.Root, namespace)
	}
	tasks := filepath.Dir(filepath.Dir(bundle))
	if filepath.Base(tasks) == bundlesDir {
		return filepath.Join(filepath.Dir(tasks), "runc", namespace)
	}
	return filepath.Join(defaultRoot, namespace)
}

// systemdCgroup tells whether systemd makes the container's cgroup. Not every
// client can say so.
func (o Options) systemdCgroup(s *specs.Spec) bool {
	return o.SystemdCgroup || NamesSystemdCgroup(s)
}

// NamesSystemdCgroup tells whether the spec's cgroup path has the shape of
// those that are systemd's to make, slice:prefix:name.
func NamesSystemdCgroup(s *specs.Spec) bool {
	return s.Linux != nil && strings.Count(s.Linux.CgroupsPath, ":") == 2
}

// owner is whom the container's pipes belong to.
func (o Options) owner(s *specs.Spec) owner {
	if o.IOUID != 0 || o.IOGID != 0 {
		return owner{uid: int(o.IOUID), gid: int(o.IOGID)}
	}
	return hostIDs(s)
}
