package cri

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
	"containerd-shim-numa-v1/test/vm"
)

// TestCheckpoint has a container's checkpoint made, as kubelet does for its
// checkpoint API; it runs on. To restore one containerd's CRI has no way.
func TestCheckpoint(t *testing.T) {
	if old() {
		skip(t, "containerd 1.7 has no checkpoints through CRI")
	}
	if err := vm.FetchCriu(t.Context()); err != nil {
		skip(t, fmt.Sprintf("needs criu, which cannot be fetched: %v", err))
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(vm.CriuDir(), "criu"), "check").CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("needs a criu that works on this kernel: criu check: %v: %s", err, out))
	}
	s := begin(t)
	p := s.pod()
	counter := []string{"/bin/sh", "-c", "exec 3>/data/numbers; i=0; while :; do i=$((i+1)); echo $i; echo $i >&3; sleep 0.05; done"}
	c := s.run(p, "main", counter)
	s.counts(c, 3)
	location := filepath.Join(t.TempDir(), "checkpoint.tar")
	_, err := s.Runtime.CheckpointContainer(s.ctx, &runtimeapi.CheckpointContainerRequest{ContainerId: c.ID, Location: location})
	s.must(err)
	names := s.tarNames(location)
	for _, name := range []string{"checkpoint/inventory.img", "rootfs-diff.tar", "container.log"} {
		if !strings.Contains(names, name+"\n") {
			t.Errorf("the checkpoint lacks %s, it has\n%s", name, names)
		}
	}
	s.counts(c, 3)
}

// counts waits until the counter has printed n more numbers.
func (s *scene) counts(c *kubelet.Container, n int) {
	s.t.Helper()
	lines := func() int { return strings.Count(s.log(c, "stdout"), "\n") }
	had := lines()
	if !rig.Eventually(bound, func() bool { return lines() >= had+n }) {
		s.t.Fatalf("the counter does not count; it printed %q", s.log(c, "stdout"))
	}
}

// tarNames are the names in an archive, one a line.
func (s *scene) tarNames(path string) string {
	s.t.Helper()
	f, err := os.Open(path)
	s.must(err)
	defer f.Close()
	var names strings.Builder
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names.String()
		}
		s.must(err)
		fmt.Fprintln(&names, h.Name)
	}
}
