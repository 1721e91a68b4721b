package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// selfExe is this very binary, also if the file was replaced meanwhile.
	selfExe = "/proc/self/exe"

	// daemonProcs is GOMAXPROCS of a daemon. It serves one pod and mostly
	// sleeps; more processors cost stacks and caches in every shim of a host.
	daemonProcs = 2

	procsEnv        = "GOMAXPROCS"
	ttrpcAddressEnv = "TTRPC_ADDRESS"
	schedCoreEnv    = "SCHED_CORE"

	oomScoreMax = 1000 // proc_pid_oom_score_adj(5)

	cgroupRoot      = "/sys/fs/cgroup"
	cgroupProcs     = "cgroup.procs"
	cgroupNameField = "name=" // of a v1 hierarchy without controllers
)

// spawn starts the daemon. The sockets become its descriptors from
// firstSocket on; its standard streams are /dev/null.
func (l launch) spawn(bundle, group string, sockets []*os.File) (*os.Process, error) {
	args := []string{os.Args[0], "-namespace", l.namespace, "-id", l.id, "-address", l.address}
	if group != l.id {
		args = append(args, "-group", group)
	}
	if l.debug {
		args = append(args, "-debug")
	}
	cmd := exec.Cmd{
		Path:        selfExe,
		Args:        args,
		Dir:         bundle,
		Env:         l.daemonEnv(os.Environ()),
		ExtraFiles:  sockets,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}

	// The cookie of core scheduling is the calling thread's, and a child
	// inherits its parent thread's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Getenv(schedCoreEnv) != "" {
		err := unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_CREATE, 0, unix.PR_SCHED_CORE_SCOPE_PROCESS_GROUP, 0)
		if err != nil {
			return nil, fmt.Errorf("make a core scheduling cookie for the process group (%s is set): %w", schedCoreEnv, err)
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	return cmd.Process, nil
}

func (l launch) daemonEnv(environ []string) []string {
	env := make([]string, 0, len(environ)+2)
	ttrpcAddress := l.ttrpcAddress
	for _, entry := range environ {
		switch name, value, _ := strings.Cut(entry, "="); name {
		case procsEnv:
		case ttrpcAddressEnv:
			if ttrpcAddress == "" {
				ttrpcAddress = value
			}
		default:
			env = append(env, entry)
		}
	}
	env = append(env, procsEnv+"="+strconv.Itoa(daemonProcs))
	if ttrpcAddress != "" {
		env = append(env, ttrpcAddressEnv+"="+ttrpcAddress)
	}
	return env
}

// raiseOOMScore makes the kernel prefer the daemon to containerd, the parent
// of this process, when memory is short. Without the permission, as in a user
// namespace, the daemon keeps what it inherited.
func raiseOOMScore(pid int) error {
	parent := os.Getppid()
	name := oomScoreFile(parent)
	data, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read containerd's OOM score: %w", err)
	}
	score, err := strconv.Atoi(string(bytes.TrimSpace(data)))
	if err != nil {
		return fmt.Errorf("read containerd's OOM score: parse %s: %w", name, err)
	}
	err = os.WriteFile(oomScoreFile(pid), []byte(strconv.Itoa(min(score+1, oomScoreMax))), 0)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("set the daemon's OOM score: %w", err)
	}
	return nil
}

func oomScoreFile(pid int) string { return fmt.Sprintf("/proc/%d/oom_score_adj", pid) }

// joinCgroup moves a process into an existing cgroup: the one of that path in
// the unified hierarchy, or in each v1 hierarchy that has it.
func joinCgroup(path string, pid int) error {
	path = filepath.Join("/", path)
	dirs, err := cgroupDirs(path)
	if err != nil {
		return err
	}
	joined := false
	for _, dir := range dirs {
		err := os.WriteFile(filepath.Join(dir, cgroupProcs), []byte(strconv.Itoa(pid)), 0)
		if errors.Is(err, fs.ErrNotExist) && len(dirs) > 1 {
			continue
		}
		if err != nil {
			return fmt.Errorf("move daemon %d into cgroup %s: %w", pid, path, err)
		}
		joined = true
	}
	if !joined {
		return fmt.Errorf("move daemon %d into cgroup %s: no hierarchy below %s has it", pid, path, cgroupRoot)
	}
	return nil
}

// cgroupDirs returns where a cgroup is, or would be, in every hierarchy.
func cgroupDirs(path string) ([]string, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &stat); err != nil {
		return nil, fmt.Errorf("find the cgroup hierarchies: statfs %s: %w", cgroupRoot, err)
	}
	if stat.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{filepath.Join(cgroupRoot, path)}, nil
	}
	const hierarchies = "/proc/self/cgroup" // cgroups(7): id:controllers:path
	data, err := os.ReadFile(hierarchies)
	if err != nil {
		return nil, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	var dirs []string
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(line, ":")
		controllers, _, _ := strings.Cut(rest, ":")
		if controllers == "" { // the unified hierarchy has none in hybrid mode
			continue
		}
		dirs = append(dirs, filepath.Join(cgroupRoot, strings.TrimPrefix(controllers, cgroupNameField), path))
	}
	return dirs, nil
}
