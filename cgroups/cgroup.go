package cgroups

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// mountRoot is where every distribution mounts cgroups: v2 itself, or one
// directory for each controller of v1.
const mountRoot = "/sys/fs/cgroup"

// unified is the name of the v2 hierarchy among controllers, as in
// /proc/<pid>/cgroup and in libcontainer's state.
const unified = ""

// v1Controllers are the controllers of v1 that this package reads or writes.
// Those that every runtime makes a cgroup of its own in come first: the first
// that a container has says which processes are in it.
var v1Controllers = [...]string{
	"freezer", "devices", "pids", "memory", "cpu", "cpuacct", "cpuset", "blkio", "hugetlb", "rdma",
}

// Cgroup is the cgroup of one container: on v1 one directory for each
// controller, on v2 a single one. It holds no descriptors and needs no
// closing. Its methods may be called from several goroutines.
type Cgroup struct {
	v2 bool
	// dirs has the absolute directory by controller; on v2 only unified.
	dirs map[string]string
	// processes is the directory whose tree lists the container's processes.
	processes string
	// final is what Stats answers once Final was called.
	final atomic.Pointer[proto.Message]
}

// Load finds the cgroup of a running process by /proc/<pid>/cgroup, see
// cgroups(7). Call it for a container's init before the container runs: later
// init may have moved itself to a cgroup below.
//
// Controllers that the process is in the root cgroup of are the host's, not
// the container's, and are left out. The error wraps fs.ErrNotExist if nothing
// remains or if the process or its cgroup has gone; a process that has exited
// is in the root of v1 already before it is reaped.
func Load(pid int) (*Cgroup, error) {
	membership, err := readFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if errors.Is(err, unix.ESRCH) { // reaped between open and read
		err = fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("load cgroup of process %d: %w", pid, err)
	}
	c, err := locate(membership)
	if err != nil {
		return nil, fmt.Errorf("load cgroup of process %d: %w", pid, err)
	}
	return c, nil
}

// LoadPaths returns the cgroup made of absolute directories by controller, as
// libcontainer's state has them in CgroupPaths: "" is the v2 hierarchy. With a
// controller of v1 the cgroup is a v1 one and "" is not used: on a hybrid host
// it holds no controllers and may be shared with others.
//
// The directories need not exist any more.
func LoadPaths(dirs map[string]string) (*Cgroup, error) {
	for controller, dir := range dirs {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("load cgroup: directory %q of controller %q is not absolute", dir, controller)
		}
	}
	c := &Cgroup{dirs: make(map[string]string, len(v1Controllers))}
	for _, controller := range v1Controllers {
		if dir, ok := dirs[controller]; ok {
			c.dirs[controller] = filepath.Clean(dir)
			c.processes = cmp.Or(c.processes, c.dirs[controller])
		}
	}
	if len(c.dirs) > 0 {
		return c, nil
	}
	if dir, ok := dirs[unified]; ok {
		dir = filepath.Clean(dir)
		return &Cgroup{v2: true, dirs: map[string]string{unified: dir}, processes: dir}, nil
	}
	return nil, fmt.Errorf("load cgroup: no known controller among %q", slices.Sorted(maps.Keys(dirs)))
}

// locate finds the directories for the lines of a /proc/<pid>/cgroup.
func locate(membership []byte) (*Cgroup, error) {
	paths, err := parseMembership(membership)
	if err != nil {
		return nil, err
	}
	v2, err := isV2()
	if err != nil {
		return nil, err
	}
	if v2 {
		path, ok := paths[unified]
		if !ok || path == "/" {
			return nil, fmt.Errorf("it has no cgroup v2 of its own: %w", fs.ErrNotExist)
		}
		dir, err := findDir(unified, path)
		if err != nil {
			return nil, err
		}
		return LoadPaths(map[string]string{unified: dir})
	}
	dirs := make(map[string]string, len(v1Controllers))
	for _, controller := range v1Controllers {
		path, ok := paths[controller]
		if !ok || path == "/" {
			continue
		}
		dir, err := findDir(controller, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		dirs[controller] = dir
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("it has no cgroup v1 of its own: %w", fs.ErrNotExist)
	}
	return LoadPaths(dirs)
}

// isV2 tells that the host has cgroup v2 alone.
func isV2() (bool, error) {
	var root unix.Statfs_t
	if err := retryEINTR(func() error { return unix.Statfs(mountRoot, &root) }); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: mountRoot, Err: err}
	}
	return root.Type == unix.CGROUP2_SUPER_MAGIC, nil
}

// parseMembership reads the "hierarchy:controllers:path" lines of
// /proc/<pid>/cgroup, cgroups(7), into paths by controller.
func parseMembership(text []byte) (map[string]string, error) {
	paths := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || !filepath.IsAbs(fields[2]) {
			return nil, fmt.Errorf("parse /proc/<pid>/cgroup: line %q", line)
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			paths[controller] = fields[2]
		}
	}
	return paths, nil
}

// findDir returns the directory of a controller's cgroup. Only where it is not
// at its usual place are the mounts read, which costs the time of a walk over
// all mounts of the host: a container that sees a part of the hierarchy, or a
// host without the symbolic link from cpu to cpu,cpuacct.
func findDir(controller, path string) (string, error) {
	// A path outside of our cgroup namespace begins with "/..".
	if filepath.Clean(path) != path {
		return "", fmt.Errorf("cgroup %q of controller %q is not within our cgroup namespace", path, controller)
	}
	dir := filepath.Join(mountRoot, controller, path)
	if isDir(dir) {
		return dir, nil
	}
	mounts, err := readFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", err
	}
	for _, m := range parseCgroupMounts(mounts) {
		inside, err := filepath.Rel(m.root, path)
		if err != nil || !m.has(controller) || inside == ".." || strings.HasPrefix(inside, "../") {
			continue
		}
		if dir := filepath.Join(m.point, inside); isDir(dir) {
			return dir, nil
		}
	}
	return "", &fs.PathError{Op: "find cgroup", Path: dir, Err: fs.ErrNotExist}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// cgroupMount is one mounted hierarchy.
type cgroupMount struct {
	root, point string
	// controllers are the super block's options, which on v1 name them.
	controllers []string
}

func (m cgroupMount) has(controller string) bool {
	return slices.Contains(m.controllers, controller)
}

// parseCgroupMounts returns the cgroup mounts of a mountinfo file,
// proc_pid_mountinfo(5).
func parseCgroupMounts(mountinfo []byte) []cgroupMount {
	const (
		rootField  = 3
		pointField = 4
		fields     = 6 // those before the optional ones
	)
	var mounts []cgroupMount
	for line := range strings.Lines(string(mountinfo)) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < fields || len(right) != 3 {
			continue
		}
		m := cgroupMount{root: left[rootField], point: left[pointField]}
		switch right[0] {
		case "cgroup":
			m.controllers = strings.Split(right[2], ",")
		case "cgroup2":
			m.controllers = []string{unified}
		default:
			continue
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// EnableControllers makes every controller that the v2 root has available in
// the container's cgroup, by cgroup.subtree_control of each ancestor. On v1 it
// does nothing.
//
// Files that already say so are not written, since writing takes the lock of
// all cgroups. The error tells of the direct parent only: above it, a
// controller that cannot be enabled again does no harm.
func (c *Cgroup) EnableControllers() error {
	if !c.v2 {
		return nil
	}
	var ancestors []string // from the parent to the root
	for dir := filepath.Dir(c.dirs[unified]); exists(filepath.Join(dir, "cgroup.controllers")); dir = filepath.Dir(dir) {
		ancestors = append(ancestors, dir)
	}
	if len(ancestors) == 0 {
		return nil
	}
	slices.Reverse(ancestors)
	available, err := readFile(filepath.Join(ancestors[0], "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("enable controllers: %w", err)
	}
	controllers := strings.Fields(string(available))
	for _, dir := range ancestors {
		err = enable(dir, controllers)
	}
	return err
}

// enable adds controllers to dir's cgroup.subtree_control. One that cannot be
// enabled, such as cpu beside realtime processes, does not hinder the others.
func enable(dir string, controllers []string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	text, err := readFile(file)
	if err != nil {
		return fmt.Errorf("enable controllers %q: %w", controllers, err)
	}
	enabled := strings.Fields(string(text))
	var errs []error
	for _, controller := range controllers {
		if slices.Contains(enabled, controller) {
			continue
		}
		if err := writeFile(file, "+"+controller); err != nil {
			errs = append(errs, fmt.Errorf("enable controller %q: %w", controller, err))
		}
	}
	return errors.Join(errs...)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
