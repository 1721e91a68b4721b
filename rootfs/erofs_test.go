package rootfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// erofsImage makes an image file of a directory.
func erofsImage(t *testing.T, dir, image string) {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs.erofs")
	if err != nil {
		t.Skip("no mkfs.erofs")
	}
	if table, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(table), "\terofs\n") {
		t.Skipf("no erofs in this kernel: %v", err)
	}
	if out, err := exec.Command(mkfs, image, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestErofs(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	s := newSnapshot(t, filepath.Join(dir, "s"), 1)
	image := filepath.Join(dir, "image")
	erofsImage(t, s.lowers[0], image)
	long := filepath.Join(dir, strings.Repeat("x", 200), "image")
	must(t, os.Mkdir(filepath.Dir(long), 0o755))
	must(t, os.Link(image, long))
	maps := []string{"uidmap=" + testMap, "gidmap=" + testMap}
	for name, c := range map[string]struct {
		m   Mount
		uid uint32
	}{
		"loop":      {Mount{Type: "erofs", Source: image, Options: []string{"ro", "loop"}}, 33},
		"long name": {Mount{Type: "erofs", Source: long, Options: []string{"ro", "loop"}}, 33},
		"mapped":    {Mount{Type: "erofs", Source: image, Options: append(maps, "ro", "loop")}, testRoot + 33},
		"device":    {Mount{Type: "erofs", Source: image, Options: []string{"ro", "loop", "direct-io"}}, 33},
	} {
		t.Run(name, func(t *testing.T) {
			unchanged(t)
			tree := assemble(t, Options{}, c.m)
			devices := len(loopDevices(t, dir))
			inside(t, tree, func(root string) error {
				uid, err := owner(filepath.Join(root, "layer1"))
				if uid != c.uid {
					t.Errorf("layer1 belongs to %d, want %d", uid, c.uid)
				}
				return err
			})
			if devices > 0 && name != "device" {
				t.Logf("%d loop devices: this kernel mounts no erofs from a file", devices)
			}
		})
	}
}

// Layers that are erofs mounts, as containerd's mount manager leaves them: the
// common directory of all is of another file system.
func TestErofsLayers(t *testing.T) {
	eachTier(t, func(t *testing.T, o Options) {
		dir := tmpfs(t)
		s := newSnapshot(t, filepath.Join(dir, "s"), 3)
		for i, lower := range s.lowers {
			image, point := filepath.Join(dir, fmt.Sprint(i)), filepath.Join(dir, "t", fmt.Sprint(i))
			erofsImage(t, lower, image)
			must(t, os.MkdirAll(point, 0o755))
			tree := assemble(t, Options{}, Mount{Type: "erofs", Source: image, Options: []string{"ro", "loop"}})
			must(t, tree.Attach(point))
			defer func() { must(t, unix.Unmount(point, unix.MNT_DETACH)) }()
			s.lowers[i] = point
		}
		for _, mapped := range []bool{false, true} {
			want := uint32(33)
			if mapped {
				want += testRoot
			}
			inside(t, assemble(t, o, s.fresh(t, mapped)), func(root string) error {
				for i := range s.lowers {
					name := fmt.Sprint("layer", i+1)
					if uid, err := owner(filepath.Join(root, name)); err != nil || uid != want {
						t.Errorf("mapped=%v: %s belongs to %d (%v), want %d", mapped, name, uid, err, want)
					}
				}
				return nil
			})
		}
	})
}
