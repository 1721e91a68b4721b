package cri

import (
	"fmt"
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
)

// TestLog writes what logs get wrong: a line longer than any buffer, one
// without an end, both streams at once.
func TestLog(t *testing.T) {
	s := begin(t)
	const length = 100_000
	c := s.run(s.pod(), "main", []string{"/bin/sh", "-c", fmt.Sprintf(
		"head -c %d /dev/zero | /bin/busybox tr '\\000' x; echo; echo error >&2; echo -n no end", length)})
	want(t, "exit code", s.exited(c).ExitCode, 0)
	s.must(c.AwaitLog("no end"))
	long, last, _ := strings.Cut(s.log(c, "stdout"), "\n")
	want(t, "length of the long line", strings.Count(long, "x"), length)
	want(t, "last line", last, "no end")
	want(t, "stderr", s.log(c, "stderr"), "error\n")
}

// TestLogReopened rotates a log as kubelet does: rename, then reopen. No line
// is lost, and later ones are in the new file.
func TestLogReopened(t *testing.T) {
	s := begin(t)
	c := s.run(s.pod(), "main", []string{"/bin/sh", "-c", "i=0; while sleep 0.01; do i=$((i+1)); echo $i; done"})
	s.must(c.AwaitLog("\n10\n"))
	rotated := c.LogPath() + ".rotated"
	s.must(os.Rename(c.LogPath(), rotated))
	_, err := s.Runtime.ReopenContainerLog(s.ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: c.ID})
	s.must(err)
	s.must(c.AwaitLog("0\n"))
	s.must(c.Stop(s.ctx, 0))
	before, err := kubelet.Log(rotated, "stdout")
	s.must(err)
	lines := strings.Fields(before + s.log(c, "stdout"))
	for i, line := range lines {
		if line != fmt.Sprint(i+1) {
			t.Fatalf("line %d is %q: %v", i+1, line, lines)
		}
	}
}
