package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"google.golang.org/protobuf/types/known/anypb"
)

// editing changes the spec.
func editing(edit func(*oci.Spec)) option {
	return withSpec(func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		edit(spec)
		return nil
	})
}

// badSpec is a spec that cannot be.
type badSpec struct {
	name  string
	edit  func(*oci.Spec)
	words string // that say why
	ours  bool   // other runtimes do what it asks: not for them
}

// TestBadSpecs creates or starts containers that cannot be. Each fails with a
// reason, and nothing of it is left: neither in their shim, which serves
// another container, nor on the machine, as the scene's census sees.
func TestBadSpecs(t *testing.T) {
	s := begin(t)
	v := s.victim()
	for _, table := range [][]badSpec{badProcesses, badSections, badLimits(v), badNamespaces(t), badMappings, badMounts(t), badHooks} {
		for _, c := range table {
			if c.ours && !detached() {
				continue
			}
			s.sub(t, c.name, func() {
				v.refused(v.attempt([]string{"/bin/true"}, editing(c.edit), withIO(cio.NullIO)), c.words)
			})
		}
	}
	v.stop()
}

// TestBadRequests sends the Task service what no client would.
func TestBadRequests(t *testing.T) {
	s := begin(t)
	v := s.victim()
	exec := func(id, spec string) func() error {
		return func() error {
			_, err := s.raw().Exec(s.ctx, &tasks.ExecProcessRequest{ContainerID: v.ID(), ExecID: id, Spec: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: []byte(spec)}})
			return err
		}
	}
	kill := func(id string, signal uint32) func() error {
		return func() error {
			_, err := s.raw().Kill(s.ctx, &tasks.KillRequest{ContainerID: v.ID(), ExecID: id, Signal: signal})
			return err
		}
	}
	update := func(resources string) func() error {
		return func() error {
			_, err := s.raw().Update(s.ctx, &tasks.UpdateTaskRequest{ContainerID: v.ID(), Resources: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", Value: []byte(resources)}})
			return err
		}
	}
	const good = `{"args":["/bin/true"],"cwd":"/"}`
	for _, c := range []struct {
		name  string
		call  func() error
		words string
		ours  bool // the runc shim does not refuse it, or dies of it
	}{
		{"exec without a spec", func() error {
			_, err := s.raw().Exec(s.ctx, &tasks.ExecProcessRequest{ContainerID: v.ID(), ExecID: "x"})
			return err
		}, "process spec", true},
		{"exec of garbage", exec("x", "{"), "process spec", false},
		{"exec of null", exec("x", "null"), "process.cwd", true},
		{"exec without arguments", exec("x", `{"cwd":"/"}`), "process.args must not be empty", true},
		{"exec in a relative directory", exec("x", `{"args":["/bin/true"],"cwd":"x"}`), `process.cwd "x" is not an absolute path`, true},
		{"exec id that escapes", exec("../../x", good), `"../../x"`, false},
		{"exec id of nothing", exec("", good), "exec id cannot be empty", false},
		{"exec id with a slash", exec("a/b", good), "a/b", false},
		{"exec id that is too long", exec(strings.Repeat("x", 300), good), "76", false},
		{"exec id of other letters", exec("ä", good), "invalid exec id ä", false},
		{"start of an unknown exec", func() error {
			_, err := s.raw().Start(s.ctx, &tasks.StartRequest{ContainerID: v.ID(), ExecID: "unknown"})
			return err
		}, `"unknown"`, false},
		{"kill of an unknown exec", kill("unknown", 9), `"unknown"`, false},
		{"signal after the last", kill("", 65), "signal 65", false},
		{"negative signal", kill("", 1<<32-1), "signal 4294967295", false},
		{"resize of an unknown exec", func() error {
			_, err := s.raw().ResizePty(s.ctx, &tasks.ResizePtyRequest{ContainerID: v.ID(), ExecID: "unknown", Width: 1, Height: 1})
			return err
		}, `"unknown"`, false},
		{"update with nothing", update(""), "resources: unexpected end of JSON input", false},
		{"update with garbage", update("[]"), "resources: json: cannot unmarshal array", false},
		{"update of memory below what is used", update(`{"memory":{"limit":1,"checkBeforeUpdate":true}}`), "OCI runtime update failed", false},
		{"update to no cpuset", update(`{"cpu":{"cpus":"x"}}`), "OCI runtime update failed", false},
		{"update to a missing CPU", update(`{"cpu":{"cpus":"4000"}}`), "OCI runtime update failed", false},
		{"update to a tiny quota", update(`{"cpu":{"quota":1,"period":1}}`), "OCI runtime update failed", false},
		{"second start", func() error {
			_, err := s.raw().Start(s.ctx, &tasks.StartRequest{ContainerID: v.ID()})
			return err
		}, "cannot start a running process", false},
		{"second create", func() error {
			_, err := s.raw().Create(s.ctx, &tasks.CreateTaskRequest{ContainerID: v.ID()})
			return err
		}, "already exists", false},
	} {
		s.sub(t, c.name, func() {
			if c.ours && !ours() {
				skip(s.t, "the shim does what is asked, or dies")
			}
			v.refused(c.call(), c.words)
		})
	}
	v.stop()
}
