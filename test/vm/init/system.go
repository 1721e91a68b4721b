package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/test/vm/guest"
)

// diskBound is how long the root disk may take to appear, under emulation.
const diskBound = time.Minute

// enterDisk makes the disk the root directory of this process and so of all
// that come after.
func enterDisk() error {
	const root = "/root"
	if err := mountAll([]mount{{"dev", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=755"}}); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	for deadline := time.Now().Add(diskBound); !exists(guest.Disk); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("no %s after %s", guest.Disk, diskBound)
		}
	}
	if err := mountAll([]mount{
		{guest.Disk, root, "ext4", unix.MS_NOATIME, ""},
		{"/dev", root + "/dev", "", unix.MS_MOVE, ""},
	}); err != nil {
		return err
	}
	// As switch_root(8): a root directory that is the top of a mount, on top
	// of the initramfs.
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to /: %w", root, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter %s: %w", root, err)
	}
	return os.Chdir("/")
}

func loadModules() error {
	order, err := os.ReadFile(guest.ModuleOrder)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		if err := loadModule(filepath.Join(guest.ModuleDir, name)); err != nil {
			return err
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	// ENODEV: an accelerated crypto driver for a CPU that this is not.
	if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

// prepare makes the disk a running system: mounts, cgroups, loopback.
func prepare(cgroupV1 bool) error {
	const noexec = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := mountAll([]mount{{"proc", "/proc", "proc", noexec, ""}}); err != nil {
		return err
	}
	if err := checkFilesystems(); err != nil {
		return err
	}
	if err := mountAll([]mount{
		{"sysfs", "/sys", "sysfs", noexec, ""},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=000"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, ""},
		{"mqueue", "/dev/mqueue", "mqueue", noexec, ""},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
	}); err != nil {
		return err
	}
	for target, link := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(link, target); err != nil {
			return err
		}
	}
	mountCgroups := mountUnified
	if cgroupV1 {
		mountCgroups = mountHybrid
	}
	if err := mountCgroups(); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make / shared: %w", err)
	}
	if err := os.Setenv("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("vm")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	return raiseLoopback()
}

// checkFilesystems holds that the kernel has what tests would otherwise skip
// for.
func checkFilesystems() error {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	known := strings.Fields(string(b))
	for _, name := range []string{"overlay", "tmpfs", "cgroup2"} {
		if !slices.Contains(known, name) {
			return fmt.Errorf("this kernel has no filesystem %s, neither built in nor as a module", name)
		}
	}
	if !exists("/dev/loop-control") {
		return errors.New("this kernel has no loop devices, neither built in nor as a module")
	}
	return nil
}

const cgroupRoot = "/sys/fs/cgroup"

// mountUnified mounts cgroup v2 with all controllers handed to the root's
// children.
func mountUnified() error {
	if err := mountAll([]mount{{"cgroup2", cgroupRoot, "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "nsdelegate"}}); err != nil {
		return err
	}
	b, err := os.ReadFile(cgroupRoot + "/cgroup.controllers")
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(b)) {
		if err := os.WriteFile(cgroupRoot+"/cgroup.subtree_control", []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("hand controller %s to the root's children: %w", controller, err)
		}
	}
	return nil
}

// mountHybrid mounts every v1 controller this kernel has, and v2 without
// controllers beside them.
func mountHybrid() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := mountAll([]mount{
		{"tmpfs", cgroupRoot, "tmpfs", flags, "mode=755"},
		{"cgroup2", cgroupRoot + "/unified", "cgroup2", flags, ""},
	}); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/cgroups") // name, hierarchy, cgroups, enabled
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if strings.HasPrefix(line, "#") || len(f) < 4 || f[3] != "1" {
			continue
		}
		dir := filepath.Join(cgroupRoot, f[0])
		err := mountAll([]mount{{"cgroup", dir, "cgroup", flags, f[0]}})
		// From 6.12 on, kernels may be built without a controller's v1 files.
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			fmt.Fprintf(os.Stderr, "init: no cgroup v1 %s in this kernel\n", f[0])
			err = os.Remove(dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// raiseLoopback does "ip link set lo up", see netdevice(7).
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("raise lo: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("raise lo: %w", err)
	}
	return nil
}

type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

// mountAll makes the mount points that are missing and mounts in order.
func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s (%s) on %s: %w", m.source, m.fstype, m.target, err)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
