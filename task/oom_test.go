package task

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"containerd-shim-numa-v1/cgroups"
)

// An out-of-memory kill of which no event has come yet when init exits is told
// before the exit all the same. The kill is real; that its event does not come
// is a trick: what is watched in the place of memory.events of cgroup v2 is the
// control file of v1, which has the same count and is never notified of.
func TestKillForWantOfMemoryIsToldBeforeTheExit(t *testing.T) {
	const v1 = "/sys/fs/cgroup/memory"
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a cgroup")
	}
	if _, err := os.Stat(filepath.Join(v1, "memory.oom_control")); err != nil {
		t.Skip("needs the memory controller of cgroup v1: ", err)
	}
	dir := filepath.Join(v1, fmt.Sprintf("numa-task-test-%d", os.Getpid()))
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { must(t, os.Remove(dir)) })
	must(t, os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte("8388608"), 0))
	v2 := t.TempDir()
	must(t, os.Symlink(filepath.Join(dir, "memory.oom_control"), filepath.Join(v2, "memory.events")))
	cg, err := cgroups.LoadPaths(map[string]string{"": v2})
	must(t, err)

	r := newRig(t)
	i := r.run("c")
	c, err := r.container("c")
	must(t, err)
	c.oom, err = cgroups.WatchOOM(cg, c.outOfMemory)
	must(t, err)
	greedy := exec.Command("/bin/sh", "-c", `echo $$ > "$0/cgroup.procs" && exec tail /dev/zero`, dir)
	if err := greedy.Run(); greedy.ProcessState == nil || greedy.ProcessState.ExitCode() != -1 {
		t.Fatalf("was not killed: %v", err)
	}
	i.init.exit(signalStatusBase + 9)
	r.wait("c", "")
	wantEvents(t, r, "create c", "start c", "oom c", "exit c")
	r.delete("c", "")
}
