package native

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// removePoll is how often it is tried whether what was killed is gone.
const removePoll = 5 * time.Millisecond

// Remove ends and removes a container whose shim is gone.
//
// A container is known by its state directory, which libcontainer makes after
// it has found the container's cgroup empty. Without one nothing is touched:
// the cgroup that the bundle names may be another container's.
func (Engine) Remove(ctx context.Context, root, id, bundle string) error {
	dir := stateDir(root, id)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	container, err := libcontainer.Load(root, id)
	if err != nil {
		// The shim died between making the directory and having an init, or
		// another Remove is at work.
		return errors.Join(RemoveCgroup(ctx, id, bundle), removeStateDir(dir))
	}
	return kill(ctx, container, dir)
}

// kill ends the container and destroys it once nothing runs any more in its
// cgroup: libcontainer tries for a second to remove each directory of one that
// is not empty, a dozen of them with cgroup v1, and knows no context. Its
// processes are the system's init to reap: a zombie counts as ended.
func kill(ctx context.Context, c *libcontainer.Container, dir string) error {
	for left := 0; ; {
		if err := c.Signal(unix.SIGKILL); err != nil && !ended(err) {
			return fmt.Errorf("kill the container: %w", err)
		}
		status, err := c.Status()
		if err != nil {
			return fmt.Errorf("status of the container: %w", err)
		}
		if status == libcontainer.Stopped {
			if left, err = killRest(c); err != nil {
				return err
			}
			if left == 0 {
				return destroy(ctx, c, dir)
			}
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("the container, killed, has not ended, or not what else is in its cgroup (%d processes): %w", left, err)
		}
	}
}

// killRest kills what has outlived init in the container's cgroup, and tells
// how many that were: whoever was put there from the host, in whose PID
// namespace it is. What is in another one is left to end: it dies with the
// container's own, or is another container's, whose spec names the same cgroup,
// which was empty when this one's init had exited, or one below.
func killRest(c *libcontainer.Container) (left int, err error) {
	pids, err := c.Processes()
	if err != nil && !ended(err) {
		return 0, fmt.Errorf("processes of the container: %w", err)
	}
	left = len(pids)
	if err := killEach(slices.DeleteFunc(pids, inOtherPIDNamespace)); err != nil {
		return 0, err
	}
	return left, nil
}

// inOtherPIDNamespace tells a process that is in another PID namespace than
// this one. One that has ended meanwhile may be taken for that.
func inOtherPIDNamespace(pid int) bool {
	const link = "/proc/%d/ns/pid"
	own, err := os.Readlink(fmt.Sprintf(link, os.Getpid()))
	if err != nil {
		return true
	}
	its, err := os.Readlink(fmt.Sprintf(link, pid))
	return err != nil || its != own
}

// killEach kills the processes of a cgroup. With the caller among them it is not
// a container's, but one above or the root's, and nothing is killed. 0 stands
// for a process outside of our PID namespace; to kill(2) it means the caller's
// own process group.
func killEach(pids []int) error {
	if self := os.Getpid(); slices.Contains(pids, self) {
		return fmt.Errorf("kill the processes of a cgroup: this process, %d, is among the %d in it, so it is no container's", self, len(pids))
	}
	for _, pid := range pids {
		if pid == 0 {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}

// ended tells whether a signal could not be sent because nobody is left: init
// has exited, or the cgroup is gone, which only an empty one can be. Both may
// happen after libcontainer has found them: containerd runs a delete for each
// container of a dead shim, and the one of the group removes them all.
func ended(err error) bool {
	for _, gone := range []error{libcontainer.ErrNotRunning, os.ErrProcessDone, unix.ESRCH, fs.ErrNotExist, unix.ENODEV} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(removePoll):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// RemoveCgroup ends what is in the cgroup that the bundle's spec names and
// removes it. The caller knows that it is the container's.
func RemoveCgroup(ctx context.Context, id, bundle string) error {
	m, err := cgroupOf(id, bundle)
	if err != nil {
		return err
	}
	if err := killCgroup(ctx, m); err != nil {
		return err
	}
	return m.Destroy()
}

// RemoveEmptyCgroup removes the cgroup that the bundle's spec names, when
// nothing is in it any more. One in which something stays until ctx ends is
// left alone: it may be another container's.
func RemoveEmptyCgroup(ctx context.Context, id, bundle string) error {
	m, err := cgroupOf(id, bundle)
	if err != nil {
		return err
	}
	for m.Exists() {
		pids, err := pidsIn(m)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return m.Destroy()
		}
		if pause(ctx) != nil {
			return nil
		}
	}
	return nil
}

// cgroupOf is the cgroup that a bundle's spec names.
func cgroupOf(id, bundle string) (cgroups.Manager, error) {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("find the container's cgroup: %w", err)
	}
	spec, err := task.ParseSpec(data)
	if err != nil {
		return nil, fmt.Errorf("find the container's cgroup: %w", err)
	}
	config, err := specconv.CreateCgroupConfig(&specconv.CreateOpts{CgroupName: id, UseSystemdCgroup: task.NamesSystemdCgroup(spec), Spec: spec}, nil)
	if err != nil {
		return nil, fmt.Errorf("find the container's cgroup: %w", err)
	}
	m, err := manager.New(config)
	if err != nil {
		return nil, fmt.Errorf("find the container's cgroup: %w", err)
	}
	return m, nil
}

func killCgroup(ctx context.Context, m cgroups.Manager) error {
	for m.Exists() {
		_ = m.Freeze(cgroups.Thawed) // a frozen process of version 1 does not die
		pids, err := pidsIn(m)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if err := killEach(pids); err != nil {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("processes of the container, killed, have not ended: %w", err)
		}
	}
	return nil
}

// pidsIn are the processes in a cgroup and below. In one that goes meanwhile
// there are none.
func pidsIn(m cgroups.Manager) ([]int, error) {
	pids, err := m.GetAllPids()
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("processes of the container: %w", err)
	}
	return pids, nil
}

// removeStateDir removes the files of a state directory and then it. It goes
// no deeper: what lies deeper is not libcontainer's, and may be a mount.
func removeStateDir(dir string) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, f := range files {
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
