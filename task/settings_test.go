package task

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func anyOf(name string, value []byte) *anypb.Any {
	return &anypb.Any{TypeUrl: name, Value: value}
}

func marshal(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := typeurl.MarshalAnyToProto(m)
	must(t, err)
	return a
}

func TestOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.toml")
	must(t, os.WriteFile(file, []byte("root = '/from/file'\n"), 0o600))
	node := Settings{Root: "/node", Rootfs: RootfsSettings{Attach: AttachHost}}
	full := anyOf("type.googleapis.com/containerd.runc.v1.Options", marshal(t, &runcoptions.Options{NoPivotRoot: true}).Value)
	for name, c := range map[string]struct {
		any  *anypb.Any
		want Options
		err  string // part of the error
	}{
		"none":          {nil, Options{Settings: node}, ""},
		"empty":         {&anypb.Any{}, Options{Settings: node}, ""},
		"runc":          {marshal(t, &runcoptions.Options{}), Options{Settings: node}, ""},
		"runc, by URL":  {full, Options{Settings: node, NoPivotRoot: true}, ""},
		"runc, all":     {marshal(t, &runcoptions.Options{Root: "/r", BinaryName: "/usr/bin/runc", NoNewKeyring: true, SystemdCgroup: true, IoUid: 1, IoGid: 2, ShimCgroup: "/x", CriuWorkPath: "/w"}), Options{Settings: Settings{Root: "/r", Runtime: RuntimeSettings{Binary: "/usr/bin/runc"}, Rootfs: node.Rootfs}, NoNewKeyring: true, SystemdCgroup: true, IOUID: 1, IOGID: 2, CriuWork: "/w"}, ""},
		"runc, criu's":  {marshal(t, &runcoptions.Options{CriuWorkPath: "w"}), Options{}, "criu_work_path"},
		"crun":          {marshal(t, &runcoptions.Options{BinaryName: "crun"}), Options{Settings: Settings{Root: "/node", Runtime: RuntimeSettings{Binary: "crun"}, Rootfs: node.Rootfs}}, ""},
		"no binary":     {marshal(t, &runcoptions.Options{BinaryName: "./crun"}), Options{}, "binary_name"},
		"runtime, TOML": {marshal(t, &runtimeoptions.Options{ConfigBody: []byte("runtime.binary='crun'")}), Options{Settings: Settings{Root: "/node", Runtime: RuntimeSettings{Binary: "crun"}, Rootfs: node.Rootfs}}, ""},
		"no runtime":    {marshal(t, &runtimeoptions.Options{ConfigBody: []byte("runtime.binary='bin/crun'")}), Options{}, "runtime.binary"},
		"relative root": {marshal(t, &runcoptions.Options{Root: "r"}), Options{}, "absolute"},
		"runtime":       {marshal(t, &runtimeoptions.Options{}), Options{Settings: node}, ""},
		"body":          {marshal(t, &runtimeoptions.Options{ConfigBody: []byte("[rootfs]\nattach='auto'")}), Options{Settings: Settings{Root: "/node", Rootfs: RootfsSettings{Attach: AttachAuto}}}, ""},
		"path":          {marshal(t, &runtimeoptions.Options{ConfigPath: file, ConfigBody: []byte("root='/body'")}), Options{Settings: Settings{Root: "/from/file", Rootfs: node.Rootfs}}, ""},
		"no such path":  {marshal(t, &runtimeoptions.Options{ConfigPath: file + "x"}), Options{}, "config_path"},
		"unknown keys":  {marshal(t, &runtimeoptions.Options{ConfigBody: []byte("a=1\n[rootfs]\nb=2\n")}), Options{}, "unknown keys a, rootfs.b"},
		"no TOML":       {marshal(t, &runtimeoptions.Options{ConfigBody: []byte("= =")}), Options{}, "config_body"},
		"wrong type":    {marshal(t, &runtimeoptions.Options{ConfigBody: []byte("root=1")}), Options{}, "config_body"},
		"attach":        {marshal(t, &runtimeoptions.Options{ConfigBody: []byte("[rootfs]\nattach='x'")}), Options{}, `"x" is neither`},
		"claims":        {marshal(t, &runtimeoptions.Options{ConfigBody: []byte("rootfs.claims=true")}), Options{}, "rootfs.claims has an effect in /etc/"},
		"claims, as is": {marshal(t, &runtimeoptions.Options{ConfigBody: []byte("rootfs.claims=false")}), Options{Settings: node}, ""},
		"root in TOML":  {marshal(t, &runtimeoptions.Options{ConfigBody: []byte("root='x'")}), Options{}, "absolute"},
		"other type":    {anyOf("containerd.linux.runc.CheckpointOptions", nil), Options{}, "CheckpointOptions"},
		"no type":       {anyOf("/", nil), Options{}, "type"},
		"malformed":     {anyOf("containerd.runc.v1.Options", []byte{0xff}), Options{}, "runtime options"},
		"malformed 2":   {anyOf("runtimeoptions.v1.Options", []byte{0x0a, 0x7f}), Options{}, "runtime options"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := node.with(c.any)
			switch {
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("error %v, want %q", err, c.err)
			case c.err == "" && (err != nil || !reflect.DeepEqual(got, c.want)):
				t.Errorf("%+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func TestMountClaims(t *testing.T) {
	for toml, want := range map[string]int{"": 0, "rootfs.claims=false": 0, "rootfs.claims=true": 5} {
		s, err := Settings{}.parse([]byte(toml))
		must(t, err)
		if mountTypes, transforms := s.MountClaims(); len(mountTypes)+len(transforms) != want {
			t.Errorf("%q: claims %q, %q", toml, mountTypes, transforms)
		}
	}
}

func TestReadSettings(t *testing.T) {
	dir := t.TempDir()
	if s, err := ReadSettings(filepath.Join(dir, "none")); err != nil || !reflect.DeepEqual(s, Settings{}) {
		t.Errorf("%+v, %v", s, err)
	}
	for text, want := range map[string]*Settings{
		"":                                     {},
		"# nothing\n":                          {},
		"root='/x'\n[rootfs]\nattach='host'":   {Root: "/x", Rootfs: RootfsSettings{Attach: "host"}},
		"rooot='/x'":                           nil,
		"\xff":                                 nil,
		strings.Repeat("#", maxSettingsSize+1): nil,
	} {
		file := filepath.Join(dir, "f")
		must(t, os.WriteFile(file, []byte(text), 0o600))
		s, err := ReadSettings(file)
		switch {
		case want == nil && (err == nil || !strings.Contains(err.Error(), file) || !reflect.DeepEqual(s, Settings{})):
			t.Errorf("%.20q: %+v, %v", text, s, err)
		case want != nil && (err != nil || !reflect.DeepEqual(s, *want)):
			t.Errorf("%.20q: %+v, %v", text, s, err)
		}
	}
	if _, err := ReadSettings(dir); err == nil {
		t.Error("a directory was read")
	}
}

func TestRoot(t *testing.T) {
	for _, c := range []struct{ root, bundle, want string }{
		{"", "/run/containerd/io.containerd.runtime.v2.task/ns/c", "/run/containerd/runc/ns"},
		{"", "/x/state/io.containerd.runtime.v2.task/ns/c", "/x/state/runc/ns"},
		{"", "/somewhere/c", "/run/containerd/runc/ns"},
		{"/own", "/run/containerd/io.containerd.runtime.v2.task/ns/c", "/own/ns"},
	} {
		if got := (Options{Settings: Settings{Root: c.root}}).root("ns", c.bundle); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestSystemdCgroupAndOwner(t *testing.T) {
	spec := &specs.Spec{Linux: &specs.Linux{
		CgroupsPath: "system.slice:cri:x",
		UIDMappings: []specs.LinuxIDMapping{{ContainerID: 1, HostID: 7, Size: 1}, {ContainerID: 0, HostID: 1000, Size: 1}},
		GIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 2000, Size: 0}},
	}}
	if !(Options{}).systemdCgroup(spec) || (Options{}).owner(spec) != (owner{uid: 1000}) {
		t.Error("of the spec")
	}
	if o := (Options{IOUID: 1, IOGID: 2}); o.owner(spec) != (owner{1, 2}) {
		t.Error("of the options")
	}
	spec.Linux.CgroupsPath = "/a:b/c"
	if (Options{}).systemdCgroup(spec) || !(Options{SystemdCgroup: true}).systemdCgroup(spec) {
		t.Error("a path is no slice")
	}
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte("root='/x'\n[rootfs]\nattach='host'"))
	f.Add([]byte("a.b.c=[1,{}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Settings{}.parse(data)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%v", err)
			}
			return
		}
		if s.Root != "" && !filepath.IsAbs(s.Root) {
			t.Errorf("root %q", s.Root)
		}
		if a := s.Rootfs.Attach; a != "" && a != AttachAuto && a != AttachHost {
			t.Errorf("attach %q", a)
		}
	})
}

// containerd 1.7's clients name a runtime that is not runc's by its old type.
func TestOptionsOfVersion1(t *testing.T) {
	t.Parallel()
	data := protowire.AppendTag(nil, 7, protowire.BytesType)
	data = protowire.AppendString(data, "mode")
	for field, value := range map[protowire.Number]uint64{v1NoPivotRoot: 1, v1NoNewKeyring: 1, v1IOUID: 1000, v1IOGID: 2000, 4: 1} {
		data = protowire.AppendTag(data, field, protowire.VarintType)
		data = protowire.AppendVarint(data, value)
	}
	o, err := Settings{}.with(anyOf(string(v1Options), data))
	if want := (Options{NoPivotRoot: true, NoNewKeyring: true, IOUID: 1000, IOGID: 2000}); err != nil || !reflect.DeepEqual(o, want) {
		t.Errorf("%+v, %v; want %+v", o, err, want)
	}
	for _, bad := range [][]byte{{0x08}, {0xff}, {0x3a, 9, 'x'}} {
		if _, err := (Settings{}).with(anyOf(string(v1Options), bad)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}
