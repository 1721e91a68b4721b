package cgroups

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// patience bounds waits for things that must happen; it is never spent in a
// test that passes.
const patience = 30 * time.Second

// eventually waits until done is true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s", patience, what)
		}
	}
}

// makeV1 makes a v1 cgroup in each of the controllers and removes it at the
// end, with everything in it.
func makeV1(t *testing.T, controllers ...string) (*Cgroup, map[string]string) {
	t.Helper()
	dirs := make(map[string]string)
	for _, controller := range controllers {
		dirs[controller] = makeDir(t, filepath.Join(mountRoot, controller))
	}
	return load(t, dirs), dirs
}

// makeV2 makes a cgroup in the v2 hierarchy, of a v2 or a hybrid host.
func makeV2(t *testing.T) (*Cgroup, string) {
	t.Helper()
	root := mountRoot
	if !exists(filepath.Join(root, "cgroup.controllers")) {
		root = filepath.Join(mountRoot, "unified")
	}
	dir := makeDir(t, root)
	return load(t, map[string]string{unified: dir}), dir
}

func load(t *testing.T, dirs map[string]string) *Cgroup {
	t.Helper()
	c, err := LoadPaths(dirs)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func makeDir(t *testing.T, parent string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a cgroup")
	}
	if !exists(filepath.Join(parent, "cgroup.procs")) {
		t.Skipf("needs the cgroup hierarchy %s", parent)
	}
	dir, err := os.MkdirTemp(parent, "cgroups-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeTree(t, dir) })
	return dir
}

// removeTree removes dir and the cgroups below it, once their processes, which
// were killed by who started them, are gone.
func removeTree(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	for _, entry := range entries {
		if entry.IsDir() {
			removeTree(t, filepath.Join(dir, entry.Name()))
		}
	}
	eventually(t, dir+" can be removed", func() bool {
		err := syscall.Rmdir(dir)
		return err == nil || errors.Is(err, os.ErrNotExist)
	})
}

// start runs a shell script in the cgroups dirs: it joins them before its
// first command. The script is killed at the end of the test.
func start(t *testing.T, script string, dirs ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read go; "+script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	gate, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	for _, dir := range dirs {
		write(t, filepath.Join(dir, "cgroup.procs"), strconv.Itoa(cmd.Process.Pid))
	}
	if _, err := io.WriteString(gate, "\n"); err != nil {
		t.Fatal(err)
	}
	gate.Close()
	return cmd
}

func write(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}

func pidsOf(t *testing.T, c *Cgroup) []int {
	t.Helper()
	pids, err := c.Pids()
	if err != nil {
		t.Fatal(err)
	}
	return pids
}
