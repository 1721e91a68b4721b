package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// CgroupMount is where the kernel's cgroup file systems are mounted.
const CgroupMount = "/sys/fs/cgroup"

// Unified reports whether the host runs cgroup v2 alone.
func Unified() bool {
	var st unix.Statfs_t
	return unix.Statfs(CgroupMount, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// CgroupFile is the path of a controller's file in the cgroup of a container:
// v1 names one hierarchy per controller, v2 has a single one.
func CgroupFile(controller, cgroupsPath, file string) string {
	if Unified() {
		return filepath.Join(CgroupMount, cgroupsPath, file)
	}
	return filepath.Join(CgroupMount, controller, cgroupsPath, file)
}

// ReadCgroup returns a cgroup file's content without the final newline. name
// is given as {v1, v2}, since the versions name their files differently.
func ReadCgroup(controller, cgroupsPath string, name [2]string) (string, error) {
	file := name[0]
	if Unified() {
		file = name[1]
	}
	b, err := os.ReadFile(CgroupFile(controller, cgroupsPath, file))
	if err != nil {
		return "", fmt.Errorf("read cgroup: %w", err)
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

// cgroupDirs lists the cgroups of every hierarchy whose path has run as a
// component, deepest first.
func cgroupDirs(run string) []string {
	var dirs []string
	filepath.WalkDir(CgroupMount, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // a cgroup that went away while we looked
		}
		if d.IsDir() && slices.Contains(strings.Split(path, "/"), run) && isCgroup(path) {
			dirs = append(dirs, path)
		}
		return nil
	})
	slices.SortFunc(dirs, func(a, b string) int { return len(b) - len(a) })
	return dirs
}

// isCgroup tells a cgroup from a directory of a tmpfs: crun makes some where it
// expects a hierarchy that is not mounted.
func isCgroup(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type != unix.TMPFS_MAGIC
}

// hierarchies lists where the host's cgroup hierarchies are mounted.
func hierarchies() []string {
	if Unified() {
		return []string{CgroupMount}
	}
	entries, err := os.ReadDir(CgroupMount)
	if err != nil {
		return nil
	}
	var mounts []string
	for _, e := range entries {
		if e.IsDir() { // not the links, such as cpu to cpu,cpuacct
			mounts = append(mounts, filepath.Join(CgroupMount, e.Name()))
		}
	}
	return mounts
}

// MakeCgroup makes a cgroup, and its parents, in every hierarchy, as kubelet
// does for a pod.
func MakeCgroup(cgroupsPath string) error {
	var err error
	for _, mount := range hierarchies() {
		err = errors.Join(err, os.MkdirAll(filepath.Join(mount, cgroupsPath), 0o755))
	}
	return err
}

// RemoveCgroup removes a cgroup from every hierarchy. One that has cgroups
// below it, or processes, is an error.
func RemoveCgroup(cgroupsPath string) error {
	var err error
	for _, mount := range hierarchies() {
		rmErr := os.Remove(filepath.Join(mount, cgroupsPath))
		if !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}
	return err
}
