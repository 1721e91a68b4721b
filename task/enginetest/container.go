package enginetest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/task"
)

// Busybox is the program in the root filesystems, under many names.
const Busybox = "/bin/busybox"

// Require skips a test where no container can be made.
func Require(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes containers")
	}
	if _, err := os.Stat(Busybox); err != nil {
		t.Skip("needs a static busybox: ", err)
	}
}

// Tree makes a root filesystem of busybox.
func Tree(t testing.TB, dir string) {
	t.Helper()
	for _, d := range []string{"bin", "proc", "dev", "tmp", "mnt"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	data, err := os.ReadFile(Busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755))
	for _, name := range []string{"sh", "sleep", "true", "cat", "echo", "kill", "dd", "tty", "stat"} {
		must(t, os.Symlink("busybox", filepath.Join(dir, "bin", name)))
	}
}

// Spec is for a container of the cgroup parent/id that runs args. The tree is
// the bundle's rootfs; its last two mounts are /tmp and /dev/pts.
func Spec(parent, id string, args ...string) *specs.Spec {
	return &specs.Spec{
		Version: "1.0.0", // the newest that crun 1.8 takes
		Root:    &specs.Root{Path: rootfs},
		Process: Process(args...),
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: parent + "/" + id,
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}},
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
}

// rootfs is where Spec has the tree, below the bundle.
const rootfs = "rootfs"

// Process is a process that runs args in the tree.
func Process(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}
}

// SharedPIDs is spec without a PID namespace of its own.
func SharedPIDs(spec *specs.Spec) *specs.Spec {
	spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	return spec
}

var serial atomic.Int32

// NewID is an id that no other container of the process has.
func NewID() string { return fmt.Sprint("c", serial.Add(1)) }

// Request is for a container of spec in a new bundle, which also has the
// engine's state, as "state", and the tree unless spec has another.
func Request(t testing.TB, spec *specs.Spec) task.CreateRequest {
	t.Helper()
	Require(t)
	bundle := t.TempDir()
	if spec.Root.Path == rootfs {
		spec.Root.Path = filepath.Join(bundle, rootfs)
		Tree(t, spec.Root.Path)
	}
	data, err := json.Marshal(spec)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600))
	return task.CreateRequest{ID: filepath.Base(spec.Linux.CgroupsPath), Bundle: bundle, Root: filepath.Join(bundle, "state"), Spec: spec}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
