package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of killing without cgroup.kill.
const (
	killLimit     = 2 * time.Second // of everything
	killPause     = time.Millisecond
	killPauseMax  = 50 * time.Millisecond
	freezeLimit   = 100 * time.Millisecond // of one attempt to freeze
	freezeRecheck = time.Millisecond
)

// Pids returns the processes in the cgroup and in all cgroups below it,
// ascending, as the caller's PID namespace numbers them; processes that it
// cannot see are left out. Of a cgroup that is gone there are none.
func (c *Cgroup) Pids() ([]int, error) {
	var pids []int
	err := walk(c.processes, func(dir string) error {
		text, err := readFile(filepath.Join(dir, "cgroup.procs"))
		// A threaded cgroup answers EOPNOTSUPP; the domain above it lists its
		// processes.
		if err != nil && !isAbsent(err) {
			return err
		}
		pids, err = appendPids(pids, string(text))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", c.processes, err)
	}
	// A process that moved meanwhile may have been listed twice.
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// appendPids adds the processes of a cgroup.procs file. 0 stands for one
// outside of our PID namespace; to kill(2) it means the caller itself.
func appendPids(pids []int, procs string) ([]int, error) {
	for line := range strings.Lines(procs) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || pid < 0 {
			return nil, fmt.Errorf("cgroup.procs has the line %q", line)
		}
		if pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// walk calls visit for dir and every cgroup below it, parents first. A cgroup
// that is gone ends its branch.
func walk(dir string, visit func(dir string) error) error {
	if err := visit(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		if isGone(err) {
			return nil
		}
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := walk(filepath.Join(dir, entry.Name()), visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// Kill sends SIGKILL to every process in the cgroup and below, including those
// that are forked meanwhile. A frozen v1 cgroup is thawed, since nothing dies
// in it. When Kill returns, processes may still be on their way out: wait for
// Pids to be empty before removing the cgroup.
//
// On v2 this is one write to cgroup.kill (5.14). On v1, and before, it is a
// loop bounded to 2 seconds. The error tells that processes may have escaped,
// or that the cgroup was not the container's own since the caller is in it.
func (c *Cgroup) Kill() error {
	pids, err := c.Pids()
	if err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	if slices.Contains(pids, os.Getpid()) {
		return fmt.Errorf("kill cgroup %s: the calling process %d is in it", c.processes, os.Getpid())
	}
	if c.v2 {
		err := writeFile(filepath.Join(c.processes, "cgroup.kill"), "1")
		if err == nil || !exists(c.processes) {
			return nil
		}
		if !isAbsent(err) {
			return fmt.Errorf("kill cgroup: %w", err)
		}
	}
	return c.killEach()
}

// killEach signals process after process until it saw all of them standing
// still, or none.
func (c *Cgroup) killEach() error {
	deadline := time.Now().Add(killLimit)
	for pause := killPause; ; pause = min(2*pause, killPauseMax) {
		left, frozen, err := c.killOnce()
		switch {
		case err != nil:
			return fmt.Errorf("kill cgroup %s: %w", c.processes, err)
		case left == 0 || frozen:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("kill cgroup %s: after %s %d processes are left and could not be frozen",
				c.processes, killLimit, left)
		}
		time.Sleep(pause)
	}
}

// killOnce freezes the cgroup, so that nobody forks and no number is given to
// another process, signals everybody and thaws it. left is how many processes
// there were.
func (c *Cgroup) killOnce() (left int, frozen bool, err error) {
	defer func() { err = errors.Join(err, c.thaw()) }()
	// A freezer that fails is one that is missing: the signals are sent all
	// the same, and the loop around this makes up for it.
	frozen = c.freeze() == nil
	pids, err := c.Pids()
	if err != nil {
		return 0, frozen, err
	}
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("SIGKILL to process %d: %w", pid, err))
		}
	}
	return len(pids), frozen, errors.Join(errs...)
}

// freezer returns the freezer's directory and its control file with the values
// that freeze and thaw. v1: Documentation/admin-guide/cgroup-v1/
// freezer-subsystem.rst; v2 since 5.2.
func (c *Cgroup) freezer() (dir, file, frozen, thawed string) {
	if c.v2 {
		return c.dirs[unified], "cgroup.freeze", "1", "0"
	}
	// Where processes are listed elsewhere, the container shares the freezer.
	if dir := c.dirs["freezer"]; dir == c.processes {
		return dir, "freezer.state", "FROZEN", "THAWED"
	}
	return "", "", "", ""
}

// freeze stops every process, or fails after freezeLimit: a process in an
// uninterruptible sleep does not stop.
func (c *Cgroup) freeze() error {
	dir, file, value, _ := c.freezer()
	if dir == "" {
		return errors.New("no freezer")
	}
	deadline := time.Now().Add(freezeLimit)
	for {
		// Written each time: v1 may overlook a process that is being forked.
		if err := writeFile(filepath.Join(dir, file), value); err != nil {
			return err
		}
		if c.isFrozen(dir, file) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("freeze %s: not frozen after %s", dir, freezeLimit)
		}
		time.Sleep(freezeRecheck)
	}
}

func (c *Cgroup) isFrozen(dir, file string) bool {
	r := &reader{dir: dir}
	if c.v2 {
		return r.keyed("cgroup.events")["frozen"] == 1
	}
	return strings.TrimSpace(r.text(file)) == "FROZEN"
}

// thaw lets the processes run, also in cgroups below that were frozen by the
// container itself.
func (c *Cgroup) thaw() error {
	dir, file, _, value := c.freezer()
	if dir == "" {
		return nil
	}
	return walk(dir, func(dir string) error {
		if err := writeFile(filepath.Join(dir, file), value); err != nil && !isGone(err) {
			return err
		}
		return nil
	})
}
