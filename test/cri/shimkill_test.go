package cri

import (
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// TestShimKilled kills the shim of a pod with several containers. All of them
// end, each exit is told once; kubelet can remove the pod, and nothing of it is
// left.
func TestShimKilled(t *testing.T) {
	cases := map[string][]kubelet.PodOption{
		"plain": nil, "host network": {kubelet.HostNetwork}, "shared PID": {kubelet.SharedPID}, "host PID": {kubelet.HostPID},
	}
	if mapped() {
		cases["user namespace"] = []kubelet.PodOption{kubelet.UserNamespace(100000)}
	}
	for name, options := range cases {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			if !ours() { // its delete command leaves the socket
				s.leaks = []string{"file S " + s.Daemon.State() + "/s/"}
			}
			p := s.pod(options...)
			var containers []*kubelet.Container
			for _, name := range []string{"a", "b", "c"} {
				containers = append(containers, s.run(p, name, []string{"/payload", "fork", "2"}))
			}
			for _, c := range containers {
				s.must(c.AwaitLog("forked"))
			}
			s.must(syscall.Kill(s.shim(p).Pid, syscall.SIGKILL))
			for _, c := range containers {
				want(t, "exit code", s.exited(c).ExitCode, unknownExit)
				event, err := s.events.Await(bound, exitTopic, c.ID, "")
				s.must(err)
				want(t, "exit status of the event", event.Status, 128+uint32(syscall.SIGKILL))
			}
			if !rig.Eventually(bound, func() bool {
				status, err := p.Status(s.ctx)
				return err == nil && status.State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY
			}) {
				t.Error("the sandbox is still said to be ready")
			}
			s.must(p.Remove(s.ctx))
			for _, c := range containers {
				s.wantExits(c, 1)
			}
		})
	}
}

// TestShimKilledWhileContainerdIsAway kills both; containerd, back, finds no
// shim, and kubelet removes the pod.
func TestShimKilledWhileContainerdIsAway(t *testing.T) {
	s := begin(t)
	if !ours() {
		s.leaks = []string{"file S " + s.Daemon.State() + "/s/"}
	}
	p := s.pod()
	c := s.run(p, "main", idle)
	shim := s.shim(p)
	s.must(s.Daemon.Kill())
	s.must(syscall.Kill(shim.Pid, syscall.SIGKILL))
	s.must(s.Daemon.Start(s.ctx))
	s.must(s.AwaitReady(s.ctx))
	s.exited(c)
	s.must(p.Remove(s.ctx))
}
