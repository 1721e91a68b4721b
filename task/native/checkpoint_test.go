package native

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// criuStandIns are what may be found in PATH instead of criu, and the words of
// the errors that come of them.
var criuStandIns = map[string]struct{ script, words string }{
	"none":         {"", `"criu": executable file not found in $PATH`},
	"fails":        {"#!/bin/sh\nexit 1\n", "runc"},
	"not a binary": {"rubbish", "exec format error"},
}

// withStandIn has PATH lead to a stand-in for criu alone.
func withStandIn(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if script != "" {
		must(t, os.WriteFile(filepath.Join(dir, "criu"), []byte(script), 0o755))
	}
	t.Setenv("PATH", dir)
}

// Without a criu that works there is no checkpoint; the container runs on.
func TestCheckpointWithoutCriu(t *testing.T) {
	for name, c := range criuStandIns {
		t.Run(name, func(t *testing.T) {
			i := run(t, specOf(newID(), "sleep", "1000"))
			withStandIn(t, c.script)
			noGrowth(t, 3, func() {
				err := i.Checkpoint(t.Context(), task.CheckpointRequest{Images: t.TempDir(), Work: t.TempDir()})
				if err == nil || !strings.HasPrefix(err.Error(), "runc checkpoint failed: ") || !strings.Contains(err.Error(), c.words) {
					t.Errorf("%v, want %q", err, c.words)
				}
			})
			if i.init.Gone() {
				t.Error("the container has ended")
			}
			if zombies := zombieChildren(t); len(zombies) > 0 {
				t.Errorf("zombies: %v", zombies)
			}
		})
	}
}

// A restore that fails leaves nothing, and may be tried again.
func TestRestoreWithoutCriu(t *testing.T) {
	for name, c := range criuStandIns {
		t.Run(name, func(t *testing.T) {
			spec := specOf(newID(), "sleep", "1000")
			r := request(t, spec)
			mounts, err := os.ReadFile("/proc/self/mountinfo")
			must(t, err)
			i, err := Engine{}.Restore(t.Context(), task.RestoreRequest{CreateRequest: r, Images: t.TempDir(), Work: t.TempDir()})
			must(t, err)
			withStandIn(t, c.script)
			noGrowth(t, 3, func() {
				err := i.Start(t.Context())
				if err == nil || !strings.HasPrefix(err.Error(), "runc restore failed: ") || !strings.Contains(err.Error(), c.words) {
					t.Errorf("%v, want %q", err, c.words)
				}
			})
			must(t, i.Delete(t.Context()))
			if left, _ := filepath.Glob(filepath.Join(r.Root, "*")); len(left) > 0 {
				t.Errorf("state left: %q", left)
			}
			if left := cgroupDirs(spec.Linux.CgroupsPath); len(left) > 0 {
				t.Errorf("cgroups left: %q", left)
			}
			after, err := os.ReadFile("/proc/self/mountinfo")
			must(t, err)
			if string(after) != string(mounts) {
				t.Error("the mount table has changed")
			}
			if zombies := zombieChildren(t); len(zombies) > 0 {
				t.Errorf("zombies: %v", zombies)
			}
		})
	}
}

func TestEmptyNamespaces(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  uint32
		ok    bool
	}{
		{nil, 0, true},
		{[]string{"network"}, unix.CLONE_NEWNET, true},
		{[]string{"network", "network"}, unix.CLONE_NEWNET, true},
		{[]string{"mount"}, 0, false},
		{[]string{"network", ""}, 0, false},
	} {
		got, err := emptyNamespaces(c.names)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %#x, %v", c.names, got, err)
		}
	}
}
