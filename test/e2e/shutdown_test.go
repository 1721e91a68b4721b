package e2e

import (
	"syscall"
	"testing"

	"containerd-shim-numa-v1/test/rig"
)

// TestHostShutsDown is what a shim sees of its host's shutdown: a SIGTERM that
// its containers get as well, and no containerd that would delete them when
// they have ended. It does not wait for one; what it leaves is removed when
// containerd is back.
func TestHostShutsDown(t *testing.T) {
	if !ours() {
		skip(t, "the runc shim ends by SIGTERM at once")
	}
	s := begin(t)
	s.gap, s.shimKilled = true, true
	sandbox := s.newID()
	first := s.run([]string{"/payload", "wait", "3"}, withID(sandbox), withAnnotation(sandboxAnnotation, sandbox))
	second := s.run([]string{"/payload", "wait", "4"}, withAnnotation(sandboxAnnotation, sandbox))
	for _, shim := range rig.Shims(rig.ShimBinary(*runtimeFlag)) {
		if shim.ID == sandbox {
			s.must(syscall.Kill(shim.Pid, syscall.SIGTERM))
		}
	}
	p := second.exec("alive", []string{"/bin/true"})
	want(t, "exit status of an exec after the shim's SIGTERM", p.status(), 0)
	p.delete()

	s.must(s.daemon.Kill())
	s.signalInit(first, syscall.SIGTERM)
	s.signalInit(second, syscall.SIGTERM)
	if !rig.Eventually(bound, func() bool { return s.shims() == 0 }) {
		t.Error("the shim waits for a containerd that is gone")
	}
	s.must(s.daemon.Start(s.ctx))
}
