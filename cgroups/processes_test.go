package cgroups

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pid(cmd *exec.Cmd) string { return strconv.Itoa(cmd.Process.Pid) }

// kinds are the ways to kill: through cgroup.kill, and with each freezer.
var kinds = map[string]struct {
	make func(t *testing.T) (*Cgroup, string)
	kill func(*Cgroup) error
}{
	"v1":                 {makeFreezer, (*Cgroup).Kill},
	"v2":                 {makeV2, (*Cgroup).Kill},
	"v2 before 5.14":     {makeV2, (*Cgroup).killEach},
	"v1 without freezer": {makeWithoutFreezer, (*Cgroup).Kill},
}

func makeFreezer(t *testing.T) (*Cgroup, string) {
	c, dirs := makeV1(t, "freezer")
	return c, dirs["freezer"]
}

func makeWithoutFreezer(t *testing.T) (*Cgroup, string) {
	c, dirs := makeV1(t, "pids")
	return c, dirs["pids"]
}

func TestKill(t *testing.T) {
	const sleeps = 50
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			c, dir := kind.make(t)
			nested := filepath.Join(dir, "nested")
			if err := os.Mkdir(nested, 0o755); err != nil {
				t.Fatal(err)
			}
			outside := start(t, "exec sleep 1000")
			start(t, "exec sleep 1000", nested)
			start(t, fmt.Sprintf("i=0; while [ $i -lt %d ]; do sleep 1000 & i=$((i+1)); done; wait", sleeps), dir)
			eventually(t, "all processes have started", func() bool { return len(pidsOf(t, c)) == sleeps+2 })
			if pids := pidsOf(t, c); !slices.IsSorted(pids) {
				t.Errorf("not sorted: %v", pids)
			}
			if err := kind.kill(c); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all are dead", func() bool { return len(pidsOf(t, c)) == 0 })
			if err := outside.Process.Signal(syscall.Signal(0)); err != nil {
				t.Errorf("the process outside: %v", err)
			}
		})
	}
}

// TestKillForking has chains of processes of which each forks the next and
// exits, so that some are always younger than any list. What escapes comes to
// the end of its chain and says so. Ends, a limit of processes and a reaper
// above them keep chains from harming the machine.
func TestKillForking(t *testing.T) {
	const (
		variable = "CGROUPS_TEST_CHAIN"
		chains   = 8
		links    = "10000"
		limit    = "2000"
	)
	if script := os.Getenv(variable); script != "" {
		runChains(t, script, chains)
		return
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			if name == "v1 without freezer" {
				t.Skip("nothing stops them from forking there")
			}
			c, dir := kind.make(t)
			_, pids := makeV1(t, "pids")
			write(t, filepath.Join(pids["pids"], "pids.max"), limit)
			escaped := filepath.Join(t.TempDir(), "escaped")
			t.Setenv(variable, `for d in `+dir+` `+pids["pids"]+`; do echo $$ >$d/cgroup.procs; done; read go;
				f() { i=$((i+1)); if [ $i -gt `+links+` ]; then echo >`+escaped+`; else (f) & fi; }; f`)
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestKillForking$")
			gate, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer gate.Close()
			eventually(t, "all have joined", func() bool { return len(pidsOf(t, c)) == chains })
			first := pidsOf(t, c)
			gate.Close()
			eventually(t, "all have been replaced", func() bool {
				return !slices.ContainsFunc(pidsOf(t, c), func(pid int) bool { return slices.Contains(first, pid) })
			})
			standStill(t, c)
			if err := kind.kill(c); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all are dead", func() bool { return len(pidsOf(t, c)) == 0 })
			if exists(escaped) {
				t.Error("a chain came to its end")
			}
		})
	}
}

// standStill freezes processes that fork and sees that they do not.
func standStill(t *testing.T, c *Cgroup) {
	t.Helper()
	if err := c.freeze(); err != nil {
		t.Fatal(err)
	}
	before := pidsOf(t, c)
	time.Sleep(10 * time.Millisecond) // for some links of the chains
	if after := pidsOf(t, c); len(before) == 0 || !slices.Equal(before, after) {
		t.Errorf("frozen, yet %v became %v", before, after)
	}
	if err := c.thaw(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they run again", func() bool { return !slices.Equal(pidsOf(t, c), before) })
}

// runChains starts the script several times and reaps it and all its orphans.
func runChains(t *testing.T, script string, chains int) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	for range chains {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Stdin = os.Stdin
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			return
		}
	}
}

func TestKillFrozen(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			c, dir := kind.make(t)
			nested := filepath.Join(dir, "nested")
			if err := os.Mkdir(nested, 0o755); err != nil {
				t.Fatal(err)
			}
			file, value := "freezer.state", "FROZEN"
			switch {
			case c.v2:
				file, value = "cgroup.freeze", "1"
			case !exists(filepath.Join(dir, file)):
				t.Skip("no freezer")
			}
			cmds := []*exec.Cmd{start(t, "exec sleep 1000", dir), start(t, "exec sleep 1000", nested)}
			write(t, filepath.Join(nested, file), value)
			write(t, filepath.Join(dir, file), value)
			eventually(t, "it is frozen", func() bool { return c.isFrozen(dir, file) })
			if err := kind.kill(c); err != nil {
				t.Fatal(err)
			}
			for _, cmd := range cmds {
				cmd.Wait() // hangs for one that is frozen still
			}
		})
	}
}

// TestKillRefusesOurOwn runs itself in a cgroup, so that a failure kills
// nobody else.
func TestKillRefusesOurOwn(t *testing.T) {
	const variable = "CGROUPS_TEST_KILL_ABOVE"
	if self := os.Getenv(variable); self != "" {
		controller, dir, _ := strings.Cut(self, ":")
		if err := load(t, map[string]string{controller: dir}).Kill(); err == nil {
			t.Error("no error")
		}
		return
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			c, dir := kind.make(t)
			controller := unified
			if !c.v2 {
				controller = "pids" // whichever: the name only tells the version
			}
			nested := filepath.Join(dir, "nested")
			if err := os.Mkdir(nested, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv(variable, controller+":"+dir)
			cmd := start(t, "exec "+executable+" -test.run='^"+t.Name()[:strings.Index(t.Name(), "/")]+"$'", nested)
			if err := cmd.Wait(); err != nil {
				t.Errorf("a process within: %v", err)
			}
		})
	}
}

func TestAppendPids(t *testing.T) {
	// 0 is a process of another PID namespace: kill(0) would be suicide.
	pids, err := appendPids(nil, "12\n0\n7\n")
	if err != nil || !slices.Equal(pids, []int{12, 7}) {
		t.Errorf("%v, %v", pids, err)
	}
	for _, bad := range []string{"x\n", "-1\n", "1 2\n"} {
		if pids, err := appendPids(nil, bad); err == nil {
			t.Errorf("%q: %v", bad, pids)
		}
	}
}
