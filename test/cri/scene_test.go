package cri

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// bound is how long anything may take that takes milliseconds when all is
// well. Exceeding it means stuck, not slow.
const bound = 60 * time.Second

// Commands of containers.
var (
	idle    = []string{"/payload", "wait"}
	forever = []string{"/bin/sleep", "100000"} // as PID 1 it ignores SIGTERM
)

// scene is one test's use of the node.
type scene struct {
	*fixture
	t    *testing.T
	ctx  context.Context
	pods []*kubelet.Pod

	leaks []string // prefixes of what the census may find more of
}

// begin takes the census and arranges that, after the test, all its pods are
// removed and a second census is the same.
func begin(t *testing.T) *scene {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &scene{fixture: shared, t: t, ctx: ctx}
	before, links := s.Daemon.TakeCensus(), s.links()
	t.Cleanup(func() {
		defer cancel()
		for _, p := range s.pods {
			if err := p.Remove(ctx); err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
		if diff := s.Daemon.AwaitCensus(before, s.leaks...); diff != "" {
			t.Errorf("the machine is not as it was before the test:\n%s", diff)
		}
		if after := s.links(); after != links {
			t.Errorf("network interfaces of the node were %s before the test and are %s after", links, after)
		}
	})
	return s
}

// links are the node's network interfaces.
func (s *scene) links() string {
	interfaces, err := net.Interfaces()
	s.must(err)
	var names []string
	for _, i := range interfaces {
		names = append(names, i.Name)
	}
	return strings.Join(names, " ")
}

// pod runs a pod that is named after the test.
func (s *scene) pod(options ...kubelet.PodOption) *kubelet.Pod {
	s.t.Helper()
	p, err := s.tryPod(options...)
	s.must(err)
	return p
}

// maxName is how long a host name may be.
const maxName = 50

func (s *scene) tryPod(options ...kubelet.PodOption) (*kubelet.Pod, error) {
	p, err := s.RunPod(s.ctx, fmt.Sprintf("%s-%d", rig.IDOf(s.t.Name(), maxName), len(s.pods)), options...)
	if err == nil {
		s.pods = append(s.pods, p)
	}
	return p, err
}

// run runs a container.
func (s *scene) run(p *kubelet.Pod, name string, command []string, options ...kubelet.ContainerOption) *kubelet.Container {
	s.t.Helper()
	c, err := p.Run(s.ctx, name, command, options...)
	s.must(err)
	return c
}

// output runs a shell script as a container to its end and returns what it
// printed. It is to succeed.
func (s *scene) output(p *kubelet.Pod, name, script string, options ...kubelet.ContainerOption) string {
	s.t.Helper()
	c := s.run(p, name, []string{"/bin/sh", "-c", script}, options...)
	status := s.exited(c)
	stderr := s.log(c, "stderr")
	if status.ExitCode != 0 {
		s.t.Errorf("%s ended with %d: %s", name, status.ExitCode, stderr)
	}
	return s.log(c, "stdout")
}

// shell runs a script in a running container. It is to succeed.
func (s *scene) shell(c *kubelet.Container, script string) string {
	s.t.Helper()
	r, err := c.Exec(s.ctx, 0, "/bin/sh", "-c", script)
	s.must(err)
	if r.Code != 0 {
		s.t.Errorf("%q ended with %d: %s", script, r.Code, r.Stderr)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

func (s *scene) exited(c *kubelet.Container) *runtimeapi.ContainerStatus {
	s.t.Helper()
	status, err := c.AwaitExit(s.ctx)
	s.must(err)
	return status
}

func (s *scene) status(c *kubelet.Container) *runtimeapi.ContainerStatus {
	s.t.Helper()
	status, err := c.Status(s.ctx)
	s.must(err)
	return status
}

func (s *scene) log(c *kubelet.Container, stream string) string {
	s.t.Helper()
	log, err := kubelet.Log(c.LogPath(), stream)
	s.must(err)
	return log
}

func (s *scene) pid(c *kubelet.Container) int {
	s.t.Helper()
	pid, err := c.Pid(s.ctx)
	s.must(err)
	return pid
}

// shims are the shims of the registration that serve the pod.
func (s *scene) shims(p *kubelet.Pod) []rig.Shim {
	name := rig.ShimBinary(rig.OurRuntime)
	if !ours() {
		name = rig.ShimBinary(rig.RuncRuntime)
	}
	var serving []rig.Shim
	for _, shim := range rig.Shims(name) {
		if shim.ID == p.ID {
			serving = append(serving, shim)
		}
	}
	return serving
}

// shim is the pod's only one.
func (s *scene) shim(p *kubelet.Pod) rig.Shim {
	s.t.Helper()
	shims := s.shims(p)
	if len(shims) != 1 {
		s.t.Fatalf("%d shims serve the pod, want one", len(shims))
	}
	return shims[0]
}

// volume makes a directory of the pod on the node.
func (s *scene) volume(p *kubelet.Pod, name string) string {
	s.t.Helper()
	dir := p.Dir() + "/volumes/" + name
	s.must(os.MkdirAll(dir, 0o777))
	s.must(os.Chmod(dir, 0o777))
	return dir
}

// must stops the test at an error.
func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// want compares two values.
func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}
