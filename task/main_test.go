package task

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/containerd/log"
)

// TestMain plays a logging program when a test starts this binary as one: its
// environment then is what the shim gives such a program and no more.
func TestMain(m *testing.M) {
	if os.Getenv("CONTAINER_ID") != "" && len(os.Args) > 1 {
		playLogger(os.Args[1:])
		return
	}
	log.L.Logger.SetOutput(io.Discard)
	code := m.Run()
	if expandedDir != "" {
		os.RemoveAll(expandedDir)
	}
	os.Exit(code)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition; a test is not to fail for being slow.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// openFDs lists the open descriptors but for those of the Go runtime.
func openFDs(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	var fds []string
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil || strings.Contains(target, "anon_inode:[event") || strings.HasPrefix(target, "/proc/") {
			continue
		}
		fds = append(fds, e.Name()+" "+target)
	}
	sort.Strings(fds)
	return fds
}

// noLeak fails the test if, at its end, there are more descriptors or
// goroutines than there were.
func noLeak(t testing.TB) {
	t.Helper()
	fds, goroutines := openFDs(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		var now []string
		settled := func() bool {
			now = openFDs(t)
			return len(now) <= len(fds) && runtime.NumGoroutine() <= goroutines
		}
		for deadline := time.Now().Add(20 * time.Second); !settled(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				stacks = stacks[:runtime.Stack(stacks, true)]
				t.Fatalf("%d goroutines, were %d; descriptors\n%s\nwere\n%s\n%s", runtime.NumGoroutine(), goroutines,
					strings.Join(now, "\n"), strings.Join(fds, "\n"), stacks)
			}
		}
	})
}

// bundle makes a bundle with a spec. edit may change the spec's JSON.
func bundle(t testing.TB, spec string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(spec), 0o600))
	return dir
}

// Specs of containers with and without a PID namespace of their own.
const (
	ownPIDs    = `{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"args":["x"],"cwd":"/"},"linux":{"namespaces":[{"type":"pid"},{"type":"mount"}]}}`
	sharedPIDs = `{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"args":["x"],"cwd":"/"},"linux":{"namespaces":[{"type":"mount"}]}}`
)

func describe(values ...any) string { return strings.TrimSpace(fmt.Sprintln(values...)) }
