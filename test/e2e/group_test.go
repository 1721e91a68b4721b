package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"

	"containerd-shim-numa-v1/test/rig"
)

// Annotations by which containerd's clients ask for a shared shim.
const (
	sandboxAnnotation = "io.kubernetes.cri.sandbox-id"
	groupAnnotation   = "io.containerd.runc.v2.group"
)

func withAnnotation(key, value string) option {
	return withSpec(oci.WithAnnotations(map[string]string{key: value}))
}

// shims counts the shims that were started for containers of the scene.
func (s *scene) shims() int {
	n := 0
	for _, shim := range rig.Shims(rig.ShimBinary(*runtimeFlag)) {
		if slices.Contains(s.ids, shim.ID) {
			n++
		}
	}
	return n
}

// TestPodSharesAShim makes a pod as CRI does: a first container whose id is
// the sandbox's, and others that name it.
func TestPodSharesAShim(t *testing.T) {
	s := begin(t)
	sandbox := s.newID()
	pause := s.run(idle, withID(sandbox), withAnnotation(sandboxAnnotation, sandbox))
	var members []*container
	for range 4 {
		members = append(members, s.run(idle, withAnnotation(sandboxAnnotation, sandbox)))
	}
	want(t, "shims of one pod", s.shims(), 1)
	for i, m := range members {
		m.stop()
		p := pause.exec(fmt.Sprintf("alive-%d", i), []string{"/bin/true"})
		want(t, "exit status of an exec beside a deleted container", p.status(), 0)
		p.delete()
	}
	want(t, "shims of the rest", s.shims(), 1)
	again := s.run([]string{"/payload", "exit", "6"}, withAnnotation(sandboxAnnotation, sandbox))
	want(t, "exit status of a late container", again.finish(), 6)
	pause.stop()
	if !rig.Eventually(bound, func() bool { return s.shims() == 0 }) {
		t.Errorf("%d shims are left", s.shims())
	}
}

// TestGroupOutlivesItsFirst deletes the container that the shim was started
// for before the others.
func TestGroupOutlivesItsFirst(t *testing.T) {
	if !ours() {
		skip(t, "the runc shim leaves its socket behind when the group's name is not its first container's id")
	}
	s := begin(t)
	first := s.run(idle, withAnnotation(groupAnnotation, "rig-group"))
	second := s.run(idle, withAnnotation(groupAnnotation, "rig-group"))
	want(t, "shims of one group", s.shims(), 1)
	first.stop()
	p := second.exec("alive", []string{"/bin/true"})
	want(t, "exit status of an exec", p.status(), 0)
	p.delete()
	second.stop()
}

// TestShimsOfTwoPods sees that pods do not share.
func TestShimsOfTwoPods(t *testing.T) {
	s := begin(t)
	a, b := s.run(idle), s.run(idle)
	want(t, "shims of two containers", s.shims(), 2)
	a.stop()
	b.stop()
}
