package rootfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBind(t *testing.T) {
	requireRoot(t)
	dir := tmpfs(t)
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	mountOver(t, sub)
	write(t, filepath.Join(sub, "f"), "", 5, 0o644)
	t.Cleanup(func() { must(t, unix.Unmount(sub, 0)) })
	for _, c := range []struct {
		options           []string
		seesSub, writable bool
		uid               uint32
	}{
		{[]string{"bind"}, false, true, 0},
		{[]string{"rbind", "rw", `context="a:b:c1,c2"`}, true, true, 5},
		{[]string{"rbind", "ro"}, true, false, 5},
		{[]string{"rbind", "ro", "uidmap=" + testMap, "gidmap=" + testMap}, true, false, testRoot + 5},
	} {
		t.Run(strings.Join(c.options, ","), func(t *testing.T) {
			unchanged(t)
			inside(t, assemble(t, Options{}, Mount{Type: "bind", Source: dir, Options: c.options}), func(root string) error {
				uid, err := owner(filepath.Join(root, "sub/f"))
				if c.seesSub != (err == nil) || c.seesSub && uid != c.uid {
					t.Errorf("sub/f belongs to %d: %v", uid, err)
				}
				err = os.Mkdir(filepath.Join(root, "new"), 0o700)
				if c.writable != (err == nil) {
					t.Errorf("mkdir: %v", err)
				}
				if err == nil {
					return os.Remove(filepath.Join(root, "new"))
				}
				return nil
			})
		})
	}
}

func TestFilesystems(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 8<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", "-E", "root_owner=3:3", image).CombinedOutput(); err != nil {
		t.Skipf("no ext4 image: %v %s", err, out)
	}
	content, err := os.ReadFile(image)
	must(t, err)
	unchanged(t)
	maps := []string{"uidmap=" + testMap, "gidmap=" + testMap}
	for name, c := range map[string]struct {
		m   Mount
		uid uint32
	}{
		"tmpfs":        {Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k,mode=711", "nosuid"}}, 0},
		"tmpfs mapped": {Mount{Type: "tmpfs", Source: "tmpfs", Options: maps}, testRoot},
		"loop":         {Mount{Type: "ext4", Source: image, Options: []string{"loop"}}, 3},
		"loop ro":      {Mount{Type: "ext4", Source: image, Options: []string{"loop", "ro", "direct-io"}}, 3},
		"loop mapped":  {Mount{Type: "ext4", Source: image, Options: append(maps, "loop")}, testRoot + 3},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "tmpfs mapped" && !mapsTmpfs(t) {
				t.Skip("a tmpfs with an ID mapping needs Linux 6.3")
			}
			if c.m.Source == image {
				// The kernel may still be unmounting the last one.
				c.m.Source = filepath.Join(t.TempDir(), "image")
				must(t, os.WriteFile(c.m.Source, content, 0o600))
			}
			inside(t, assemble(t, Options{}, c.m), func(root string) error {
				if uid, err := owner(root); err != nil || uid != c.uid {
					t.Errorf("root belongs to %d (%v), want %d", uid, err, c.uid)
				}
				return nil
			})
		})
	}
	for range 100 { // the namespaces that "inside" used may still be ending
		if len(loopDevices(t, os.TempDir()+"/"+t.Name())) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("loop devices left: %v", loopDevices(t, os.TempDir()+"/"+t.Name()))
}

// loopDevices gives the files behind loop devices that begin with prefix.
func loopDevices(t *testing.T, prefix string) (found []string) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	for _, f := range files {
		if b, _ := os.ReadFile(f); strings.HasPrefix(string(b), prefix) {
			found = append(found, string(b))
		}
	}
	return found
}
