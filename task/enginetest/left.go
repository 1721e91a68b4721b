package enginetest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// CgroupParent is the cgroup below which an engine's tests have theirs, apart
// from those of the same tests in another process.
func CgroupParent(engine string) string {
	return fmt.Sprintf("/numa-%s-test-%d", engine, os.Getpid())
}

// Run runs a package's tests, whose cgroups are below parent, and returns 1
// instead of 0 if any is left in the end. It removes them all.
func Run(m *testing.M, parent string) (code int) {
	code = m.Run()
	left := slices.DeleteFunc(Cgroups(parent), func(dir string) bool { return strings.HasSuffix(dir, parent) })
	if len(left) > 0 && code == 0 {
		fmt.Fprintln(os.Stderr, "cgroups left:", left)
		code = 1
	}
	_ = RemoveCgroups(parent)
	return code
}

// Cgroups finds a cgroup's directories, and those below, in all hierarchies.
func Cgroups(path string) []string {
	var dirs []string
	roots, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, root := range append(roots, "/sys/fs/cgroup") {
		_ = filepath.WalkDir(root+path, func(dir string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && isCgroup(dir) {
				dirs = append(dirs, dir)
			}
			return nil
		})
	}
	return dirs
}

// isCgroup tells a cgroup from the directories that crun makes on a tmpfs.
func isCgroup(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type != unix.TMPFS_MAGIC
}

// RemoveCgroups removes a cgroup and those below, in all hierarchies, as far as
// they are empty; the error tells of the others.
func RemoveCgroups(path string) error {
	var errs []error
	for _, dir := range slices.Backward(Cgroups(path)) {
		errs = append(errs, os.Remove(dir))
	}
	return errors.Join(errs...)
}

// NothingLeft fails if anything of a container is there: cgroups, the engine's
// state, or files in the bundle that were to be temporary.
func NothingLeft(t testing.TB, r task.CreateRequest) {
	t.Helper()
	if left := Cgroups(r.Spec.Linux.CgroupsPath); len(left) > 0 {
		t.Errorf("cgroups left: %q", left)
	}
	if left, _ := filepath.Glob(filepath.Join(r.Root, "*")); len(left) > 0 {
		t.Errorf("state left: %q", left)
	}
	if left, _ := filepath.Glob(filepath.Join(r.Bundle, ".*")); len(left) > 0 {
		t.Errorf("in the bundle: %q", left)
	}
}

// Eventually waits for a condition; a test is not to fail for being slow.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	const poll = 5 * time.Millisecond
	for deadline := time.Now().Add(bound); !ok(); time.Sleep(poll) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// NoGrowth fails if f, done often, leaves descriptors or goroutines.
func NoGrowth(t testing.TB, times int, f func()) {
	t.Helper()
	count := func() (fds, goroutines int) {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries), runtime.NumGoroutine()
	}
	f()
	fds, goroutines := count()
	for range times {
		f()
	}
	Eventually(t, fmt.Sprintf("there are %d descriptors and %d goroutines as before", fds, goroutines), func() bool {
		nowFDs, nowGoroutines := count()
		return nowFDs <= fds && nowGoroutines <= goroutines
	})
}
