package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
)

// TestBadSpecs creates or starts containers that cannot be. Each fails with a
// reason, and the scene's census sees that nothing of it is left.
func TestBadSpecs(t *testing.T) {
	for name, break_ := range map[string]func(*oci.Spec){
		"no arguments":        func(s *oci.Spec) { s.Process.Args = nil },
		"missing program":     func(s *oci.Spec) { s.Process.Args = []string{"/no/such/program"} },
		"program not allowed": func(s *oci.Spec) { s.Process.Args = []string{"/etc/passwd"} },
		"relative cwd":        func(s *oci.Spec) { s.Process.Cwd = "relative" },
		"no process":          func(s *oci.Spec) { s.Process = nil },
		"no root":             func(s *oci.Spec) { s.Root = nil },
		"unknown namespace": func(s *oci.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "bogus"})
		},
		"namespace twice": func(s *oci.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0])
		},
		"missing namespace path": func(s *oci.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces[:0], specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/no/such/ns"})
		},
		"missing mount source": func(s *oci.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: "/no/such/source", Destination: "/mnt", Options: []string{"bind"}})
		},
		"unknown file system": func(s *oci.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: "bogusfs", Source: "none", Destination: "/mnt"})
		},
		"empty mapping": func(s *oci.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 0}}
			s.Linux.GIDMappings = []specs.LinuxIDMapping{{Size: 0}}
		},
		"missing CPU":      func(s *oci.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "4095"} },
		"malformed cpuset": func(s *oci.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "0-,x"} },
		"unknown capability": func(s *oci.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_BOGUS", Hard: 1, Soft: 1}}
		},
		"failing hook": func(s *oci.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			c, err := s.tryCreate([]string{"/bin/true"}, withSpec(func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
				break_(spec)
				return nil
			}))
			if err == nil {
				err = c.Start(s.ctx)
			}
			if err == nil && name == "namespace twice" && crun() {
				t.Log("crun joins a namespace as often as the spec has it")
			} else if err == nil {
				t.Error("the container started")
			} else if text := err.Error(); len(text) < 10 || strings.Contains(text, "panic") {
				t.Errorf("the error explains nothing: %v", err)
			}
		})
	}
}

// TestBadRootfs gives mounts of the root file system that cannot be made.
func TestBadRootfs(t *testing.T) {
	for name, mounts := range map[string][]mount.Mount{
		"missing source":       {{Type: "bind", Source: "/no/such/root", Options: []string{"rbind", "rw"}}},
		"unknown file system":  {{Type: "bogusfs", Source: "none"}},
		"missing lower layer":  {{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=/no/such/layer:/no/such/other"}}},
		"overlay, no layers":   {{Type: "overlay", Source: "overlay"}},
		"unknown option":       {{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=/bin:/etc", "bogus=1"}}},
		"second mount fails":   {{Type: "tmpfs", Source: "tmpfs"}, {Type: "bogusfs", Source: "none", Target: "sub"}},
		"target that escapes":  {{Type: "tmpfs", Source: "tmpfs"}, {Type: "tmpfs", Source: "tmpfs", Target: "../../../escaped"}},
		"malformed id mapping": {{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=/bin:/etc", "uidmap=x", "gidmap=y"}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			definition, _, err := s.define([]string{"/bin/true"})
			s.must(err)
			task, err := definition.NewTask(s.ctx, cio.NullIO, containerd.WithRootFS(mounts))
			if err == nil {
				err = task.Start(s.ctx)
			}
			if err == nil {
				t.Error("the container started")
			}
		})
	}
}

// TestBadRequests sends the Task service what no client would.
func TestBadRequests(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	for name, call := range map[string]func() error{
		"exec without a spec": func() error {
			_, err := s.raw().Exec(s.ctx, &tasks.ExecProcessRequest{ContainerID: c.ID(), ExecID: "x"})
			return err
		},
		"exec of garbage": func() error {
			_, err := s.raw().Exec(s.ctx, &tasks.ExecProcessRequest{ContainerID: c.ID(), ExecID: "x", Spec: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: []byte("{")}})
			return err
		},
		"exec id that escapes": func() error {
			_, err := s.raw().Exec(s.ctx, &tasks.ExecProcessRequest{ContainerID: c.ID(), ExecID: "../../x"})
			return err
		},
		"start of an unknown exec": func() error {
			_, err := s.raw().Start(s.ctx, &tasks.StartRequest{ContainerID: c.ID(), ExecID: "unknown"})
			return err
		},
		"kill of an unknown exec": func() error {
			_, err := s.raw().Kill(s.ctx, &tasks.KillRequest{ContainerID: c.ID(), ExecID: "unknown", Signal: 9})
			return err
		},
		"impossible signal": func() error {
			_, err := s.raw().Kill(s.ctx, &tasks.KillRequest{ContainerID: c.ID(), Signal: 12345})
			return err
		},
		"resize of an unknown exec": func() error {
			_, err := s.raw().ResizePty(s.ctx, &tasks.ResizePtyRequest{ContainerID: c.ID(), ExecID: "unknown", Width: 1, Height: 1})
			return err
		},
		"update with garbage": func() error {
			_, err := s.raw().Update(s.ctx, &tasks.UpdateTaskRequest{ContainerID: c.ID(), Resources: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", Value: []byte("[]")}})
			return err
		},
		"second start": func() error {
			_, err := s.raw().Start(s.ctx, &tasks.StartRequest{ContainerID: c.ID()})
			return err
		},
		"second create": func() error {
			_, err := s.raw().Create(s.ctx, &tasks.CreateTaskRequest{ContainerID: c.ID()})
			return err
		},
	} {
		if name == "exec without a spec" && !ours() {
			continue // the runc shim dereferences it and dies
		}
		if err := call(); err == nil {
			t.Errorf("%s succeeded", name)
		}
		_, err := c.Status(s.ctx)
		if err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
	}
	p := c.exec("after", []string{"/bin/true"})
	want(t, "exit status after all of it", p.status(), 0)
	p.delete()
	c.stop()
}
