package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/test/rig"
)

// places of the isolated host, whose /run is an empty tmpfs.
const (
	hostMounts = "/run/host"
	targets    = "/run/targets"   // bundles
	tempMounts = "/run/tmpmounts" // of containerd
)

// mappedRoot is the host's id of root in containers that have a mapping.
const mappedRoot = 100000

// host is the machine that root filesystems are made on.
type host struct {
	options
	store  string // where layers and containers are
	slaves []*exec.Cmd
}

// newHost fills the isolated mount namespace as that of a host is.
func newHost(dir string, o options) (*host, error) {
	h := &host{options: o, store: filepath.Join(dir, "store")}
	if err := os.MkdirAll(h.store, 0o711); err != nil {
		return nil, err
	}
	if !o.disk {
		if err := unix.Mount("store", h.store, "tmpfs", 0, "mode=711"); err != nil {
			return nil, fmt.Errorf("mount tmpfs for layers: %w", err)
		}
	}
	for i := range o.entries {
		point := filepath.Join(hostMounts, strconv.Itoa(i))
		if err := os.MkdirAll(point, 0o700); err != nil {
			return nil, err
		}
		if err := unix.Mount("volume", point, "tmpfs", 0, "size=4k"); err != nil {
			return nil, fmt.Errorf("mount tmpfs number %d: %w", i, err)
		}
	}
	if err := os.MkdirAll(tempMounts, 0o700); err != nil {
		return nil, err
	}
	for _, layers := range o.layers {
		for _, layer := range h.image(layers) {
			if err := makeLayer(layer); err != nil {
				return nil, err
			}
		}
	}
	for range o.slaves {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{workerEnv + "=" + slaveRole}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
		ready, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("start a service's mount namespace: %w", err)
		}
		h.slaves = append(h.slaves, cmd)
		if _, err := ready.Read(make([]byte, 1)); err != nil {
			return nil, fmt.Errorf("make a service's mount namespace: %w", err)
		}
	}
	return h, nil
}

// image gives the layers of an image, topmost first, laid out as by
// containerd's overlay snapshotter.
func (h *host) image(layers int) []string {
	image := make([]string, layers)
	for i := range image {
		image[i] = filepath.Join(h.store, "snapshots-"+strconv.Itoa(layers), strconv.Itoa(100+layers-i), "fs")
	}
	return image
}

func makeLayer(layer string) error {
	for _, d := range []string{"etc", "usr"} {
		if err := os.MkdirAll(filepath.Join(layer, d), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(layer, "etc", "layer"), []byte(layer), 0o644)
}

// container gives the directories of one container, new ones.
func (h *host) container(name string) (*container, error) {
	dir := filepath.Join(h.store, "containers", name)
	c := &container{upper: filepath.Join(dir, "fs"), work: filepath.Join(dir, "work"), target: filepath.Join(targets, name, "rootfs")}
	for _, d := range []string{c.upper, c.work, c.target} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	return c, os.Chown(c.upper, mappedRoot, mappedRoot)
}

func (h *host) close() error {
	for _, cmd := range h.slaves {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // says that it was killed
	}
	if h.disk {
		return nil // the isolation removes it
	}
	return unix.Unmount(h.store, unix.MNT_DETACH)
}

// describe names the machine, without what would tell whose it is.
func (h *host) describe() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // fails for a bad address only
	release := unix.ByteSliceToString(u.Release[:])
	version, _, _ := strings.Cut(release, "-")
	where := "a tmpfs"
	if h.disk {
		where = "a disk's file system"
		var st unix.Statfs_t
		if unix.Statfs(h.store, &st) == nil && st.Type == unix.EXT4_SUPER_MAGIC {
			where = "ext4"
		}
	}
	model := "CPUs"
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				model = "CPUs (" + strings.Trim(name, "\t :\n") + ")"
				break
			}
		}
	}
	return fmt.Sprintf("Linux %s, %d %s, layers on %s, %d entries in the mount table, %d more mount namespaces.",
		version, runtime.NumCPU(), model, where, len(rig.MountTable()), len(h.slaves))
}

// playSlave is a service with a mount namespace of its own.
func playSlave() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	if _, err := os.Stdout.Write([]byte{1}); err != nil {
		return err
	}
	for {
		if err := unix.Pause(); err != unix.EINTR {
			return err
		}
	}
}
