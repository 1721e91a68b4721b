package cri

import (
	"strings"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
)

// unhurried is a grace, in seconds, that no test waits for.
const unhurried = 600

// TestStop ends containers within their grace by SIGTERM, which they may
// answer with a status of their own, or at its end by SIGKILL.
func TestStop(t *testing.T) {
	s := begin(t)
	p := s.pod()
	graceful := s.run(p, "graceful", []string{"/payload", "wait", "9"})
	s.must(graceful.AwaitLog("ready"))
	s.must(graceful.Stop(s.ctx, unhurried)) // returns long before, or the test does not
	want(t, "exit code within the grace", s.exited(graceful).ExitCode, 9)

	deaf := s.run(p, "deaf", []string{"/bin/sh", "-c", "trap 'echo got it' TERM; echo ready; while true; do sleep 0.1; done"})
	s.must(deaf.AwaitLog("ready"))
	s.must(deaf.Stop(s.ctx, 1))
	status := s.exited(deaf)
	want(t, "exit code after the grace", status.ExitCode, 128+int32(syscall.SIGKILL))
	want(t, "reason", status.Reason, "Error")
	s.must(deaf.AwaitLog("got it")) // first it was asked

	at := s.run(p, "at-once", []string{"/bin/sh", "-c", "trap 'echo got it' TERM; echo ready; while true; do sleep 0.1; done"})
	s.must(at.AwaitLog("ready"))
	s.must(at.Stop(s.ctx, 0))
	want(t, "exit code without grace", s.exited(at).ExitCode, 128+int32(syscall.SIGKILL))
	want(t, "that it was asked", strings.Contains(s.log(at, "stdout"), "got it"), false)
	s.must(at.Stop(s.ctx, unhurried)) // an ended one
}

// TestStopSignal stops by a signal of the container's choice. containerd takes
// it from the image only before 2.3, and sends SIGTERM.
func TestStopSignal(t *testing.T) {
	s := begin(t)
	c := s.run(s.pod(), "main", []string{"/bin/sh", "-c",
		"trap 'exit 1' TERM; trap 'exit 11' INT; echo ready; while true; do sleep 0.1; done"},
		kubelet.WithConfig(func(c *runtimeapi.ContainerConfig) { c.StopSignal = runtimeapi.Signal_SIGNAL_SIGINT }))
	s.must(c.AwaitLog("ready"))
	s.must(c.Stop(s.ctx, unhurried))
	code := int32(11)
	if old() || strings.HasPrefix(s.Version, "2.2.") {
		code = 1
	}
	want(t, "exit code", s.exited(c).ExitCode, code)
}

// TestStopLeavesNoProcess stops a container that has forked: all of it ends.
func TestStopLeavesNoProcess(t *testing.T) {
	for name, options := range map[string]kubelet.PodOption{"own": func(*kubelet.Pod) {}, "shared": kubelet.SharedPID, "host": kubelet.HostPID} {
		t.Run(name+" PID namespace", func(t *testing.T) {
			s := begin(t)
			c := s.run(s.pod(options), "main", []string{"/payload", "fork", "5"})
			s.must(c.AwaitLog("forked"))
			s.must(c.Stop(s.ctx, unhurried))
			s.exited(c)
			s.must(c.Remove(s.ctx))
		})
	}
}
