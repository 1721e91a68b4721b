package task

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestCheckNamespaces(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	must(t, os.WriteFile(file, nil, 0o600))
	makeFIFO(t, fifo)
	for _, c := range []struct {
		kind  specs.LinuxNamespaceType
		path  string
		words string // of the error, "" for none
	}{
		{specs.PIDNamespace, "", ""},
		{specs.PIDNamespace, "/proc/self/ns/pid", ""},
		{specs.PIDNamespace, "/proc/self/ns/pid_for_children", ""},
		{specs.NetworkNamespace, "/proc/self/ns/net", ""},
		{specs.IPCNamespace, "/proc/self/ns/ipc", ""},
		{specs.UTSNamespace, "/proc/self/ns/uts", ""},
		{specs.UserNamespace, "/proc/self/ns/user", ""},
		{specs.CgroupNamespace, "/proc/self/ns/cgroup", ""},
		{specs.TimeNamespace, "/proc/self/ns/time", ""},
		{specs.MountNamespace, "/proc/thread-self/ns/mnt", "it is the host's"},
		{"bogus", "/proc/self/ns/net", ""}, // the engine's to refuse
		{specs.NetworkNamespace, "/nonexistent", "network namespace /nonexistent: no such file"},
		{specs.NetworkNamespace, file, "there is no namespace"},
		{specs.NetworkNamespace, fifo, "there is no namespace"},
		{specs.NetworkNamespace, dir, "there is no namespace"},
		{specs.NetworkNamespace, "/proc/self/ns/ipc", "of another type"},
		{specs.UserNamespace, "/proc/self/ns/mnt", "of another type"},
		{specs.NetworkNamespace, "a\x00b", "invalid argument"},
	} {
		err := checkNamespaces([]specs.LinuxNamespace{{Type: c.kind, Path: c.path}})
		if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s %q: %v, want %q", c.kind, c.path, err, c.words)
		}
	}
}
