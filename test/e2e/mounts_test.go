package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"containerd-shim-numa-v1/test/rig"
)

// TestHostMountTable watches the mount table of containerd's namespace from
// before Create to after Delete. Ours must not touch it; the runc shim's
// figure is logged.
func TestHostMountTable(t *testing.T) {
	for name, opts := range map[string][]option{
		"one layer":                   nil,
		"many layers":                 {withImage(shared.layered)},
		"many layers, user namespace": {withImage(shared.layered), withUserNamespace(mappedRoot)},
	} {
		t.Run(name, func(t *testing.T) {
			if len(opts) > 1 && !shared.idmaps {
				skip(t, "containerd's client mounts, to change the owners of a copy of the image")
			}
			s := begin(t)
			before := rig.MountTable()
			watch, err := rig.WatchMounts()
			s.must(err)
			c := s.run(idle, opts...)
			c.awaitOutput("ready")
			during := rig.MountTable()
			p := c.exec("true", []string{"/bin/true"})
			p.status()
			p.delete()
			c.stop()
			seen := watch.Stop()
			t.Logf("%s: %d wake-ups, %d entries more while it ran, %d after it", name, seen.Wakeups, len(during)-len(before), seen.Left)
			want(t, "entries left behind", seen.Left, 0)
			if detached() {
				want(t, "changes of the host's mount table", seen, rig.MountActivity{})
				want(t, "table while the container runs", strings.Join(during, "\n"), strings.Join(before, "\n"))
			}
		})
	}
}

// TestWatchSeesMounts shows that the watch of TestHostMountTable can fail.
func TestWatchSeesMounts(t *testing.T) {
	s := begin(t)
	dir := t.TempDir()
	watch, err := rig.WatchMounts()
	s.must(err)
	s.must(mountTmpfs(dir))
	s.must(unmount(dir))
	if seen := watch.Stop(); seen.Wakeups == 0 {
		t.Errorf("a mount and its unmount were not seen: %+v", seen)
	}
}

// TestBundleRootfs sees that the bundle's rootfs is there for whoever looks,
// and that the container's root is nevertheless an overlay of its own.
func TestBundleRootfs(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/bin/sh", "-c", "cat /proc/self/mounts; /payload wait"})
	c.awaitOutput("ready")
	entries, err := os.ReadDir(filepath.Join(s.daemon.Bundle(c.ID()), "rootfs"))
	s.must(err)
	if detached() {
		want(t, "entries of the bundle's rootfs on the host", len(entries), 0)
	}
	roots := 0
	for line := range strings.Lines(c.stdout.String()) {
		f := strings.Fields(line)
		if len(f) > 2 && f[1] == "/" {
			roots++
			want(t, "type of the container's root", f[2], "overlay")
		}
		if len(f) > 2 && strings.HasPrefix(f[1], s.daemon.State()) {
			t.Errorf("the container sees a mount of the host: %s", line)
		}
	}
	want(t, "number of roots", roots, 1)
	// The container's root can be entered from the host, as tools do.
	b, err := os.ReadFile(filepath.Join("/proc", pidString(c), "root/etc/group"))
	s.must(err)
	if !strings.HasPrefix(string(b), "root:") {
		t.Errorf("/etc/group by /proc is %q", b)
	}
	c.stop()
}
