package rootfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// erofsLayers makes n image files under a directory named as one of
// containerd's snapshotter, topmost first.
func erofsLayers(t *testing.T, n int) (dir string, s *snapshot, layers []Mount) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "io.containerd.snapshotter.v1.erofs")
	must(t, os.Mkdir(dir, 0o755))
	s = newSnapshot(t, filepath.Join(dir, "s"), n)
	for i, lower := range s.lowers {
		image := filepath.Join(dir, fmt.Sprintf("%d.erofs", n-i))
		erofsImage(t, lower, image)
		layers = append(layers, Mount{Type: "erofs", Source: image, Options: []string{"ro", "loop"}})
	}
	return dir, s, layers
}

// noLoops sees that no device is left on files below dir. The kernel frees
// them some time after their last use.
func noLoops(t *testing.T, dir string) {
	t.Helper()
	for range 500 {
		if len(loopDevices(t, dir)) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("loop devices left: %v", loopDevices(t, dir))
}

func needProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip("no", name)
	}
}

// seesLayers checks that root is the union of n layers.
func seesLayers(t *testing.T, root string, n int, firstID uint32) {
	t.Helper()
	top, err := os.ReadFile(filepath.Join(root, "top"))
	if err != nil || string(top) != strconv.Itoa(n) {
		t.Errorf("top is of layer %q (%v), want %d", top, err, n)
	}
	for i := 1; i <= n; i++ {
		if uid, err := owner(filepath.Join(root, fmt.Sprint("layer", i))); err != nil || uid != firstID+33 {
			t.Errorf("layer%d belongs to %d (%v), want %d", i, uid, err, firstID+33)
		}
	}
}

// As the erofs snapshotter hands them out, in every tier: layers, templates,
// with and without a mapping.
func TestClaimedErofs(t *testing.T) {
	eachTier(t, func(t *testing.T, o Options) {
		if o.Tier == Host {
			o.Target = t.TempDir()
		}
		dir, s, layers := erofsLayers(t, 3)
		for _, mapped := range []bool{false, true} {
			if o.Tier != Host {
				unchanged(t)
			}
			options := []string{"workdir=" + s.work, "upperdir=" + s.upper}
			first := uint32(0)
			if mapped {
				first = testRoot
				options = append(options, "uidmap="+testMap, "gidmap="+testMap)
			}
			mounts := append(append([]Mount{}, layers...), Mount{Type: "format/mkdir/overlay", Source: "overlay", Options: append(options, "lowerdir={{ overlay 0 2 }}")})
			tree := assemble(t, o, mounts...)
			inside(t, tree, func(root string) error {
				seesLayers(t, root, 3, first)
				return os.WriteFile(filepath.Join(root, "new"), []byte("x"), 0o600)
			})
			if _, err := os.Stat(filepath.Join(s.upper, "new")); err != nil {
				t.Errorf("mapped=%v: what was written is not in the upper directory: %v", mapped, err)
			}
			must(t, os.RemoveAll(s.work))
			must(t, os.Mkdir(s.work, 0o711))
		}
		noLoops(t, dir)
	})
}

// A hundred layers, detached, without a device where the kernel mounts files.
func TestClaimedErofsHundredLayers(t *testing.T) {
	requireRoot(t)
	const n = 100
	dir, s, layers := erofsLayers(t, n)
	unchanged(t)
	options := []string{"workdir=" + s.work, "upperdir=" + s.upper, "lowerdir={{ overlay 0 99 }}", "uidmap=" + testMap, "gidmap=" + testMap}
	tree := assemble(t, Options{}, append(layers, Mount{Type: "format/mkdir/overlay", Source: "overlay", Options: options})...)
	stats, devices := tree.Stats(), len(loopDevices(t, dir))
	t.Logf("%+v, %d loop devices", stats, devices)
	if devices > 0 && mountsFiles(t, layers[0].Source) {
		t.Errorf("%d loop devices on a kernel that needs none", devices)
	}
	if stats.Mounts != n+1 || stats.Layers != n || stats.Attached != 0 {
		t.Errorf("stats %+v, want %d mounts, %d layers, none attached", stats, n+1, n)
	}
	inside(t, tree, func(root string) error { seesLayers(t, root, n, testRoot); return nil })
	noLoops(t, dir)
}

// mountsFiles reports whether this kernel mounts an erofs from a file (Linux
// 6.12, if configured so).
func mountsFiles(t *testing.T, file string) bool {
	t.Helper()
	var c calls
	fs, err := c.fsopen("erofs")
	must(t, err)
	defer c.close(fs)
	must(t, c.setFlag(fs, "ro"))
	must(t, c.setString(fs, "source", file))
	return c.create(fs) == nil
}

// The upper directory on an image that is made when missing, and the lower
// ones; the second assembly finds both.
func TestClaimedWritableImage(t *testing.T) {
	needProgram(t, "mkfs.ext4")
	eachTier(t, func(t *testing.T, o Options) {
		if o.Tier == Host {
			o.Target = t.TempDir()
		}
		dir, _, layers := erofsLayers(t, 2)
		mounts := append([]Mount{{Type: "mkfs/ext4", Source: filepath.Join(dir, "rw.img"), Options: []string{
			"X-containerd.mkfs.fs=ext4", "X-containerd.mkfs.size=16MiB", "X-containerd.mkfs.uuid=01234567-89ab-cdef-0123-456789abcdef", "rw", "loop",
		}}}, layers...)
		mounts = append(mounts, Mount{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{
			"X-containerd.mkdir.path={{ mount 0 }}/upper:0755", "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
			"workdir={{ mount 0 }}/work", "upperdir={{ mount 0 }}/upper", "lowerdir={{ overlay 1 2 }}",
		}})
		for round := range 2 {
			if o.Tier != Host {
				unchanged(t)
			}
			inside(t, assemble(t, o, mounts...), func(root string) error {
				seesLayers(t, root, 2, 0)
				for i := range round {
					if _, err := os.Stat(filepath.Join(root, fmt.Sprint("round", i))); err != nil {
						t.Error(err)
					}
				}
				return os.WriteFile(filepath.Join(root, fmt.Sprint("round", round)), nil, 0o600)
			})
			noLoops(t, dir)
		}
		entries, err := os.ReadDir(dir)
		must(t, err)
		if len(entries) != 4 {
			t.Errorf("%v, want the snapshot, two layers and the image", entries)
		}
	})
}

// Binds of earlier mounts, of directories made on them, loop devices as
// sources, file systems with several files, and xfs.
func TestClaimedOthers(t *testing.T) {
	requireRoot(t)
	dir, s, layers := erofsLayers(t, 2)
	image := filepath.Join(dir, "rw.img")
	mkfs := Mount{Type: "mkfs/ext4", Source: image, Options: []string{"X-containerd.mkfs.size=16m", "rw", "loop"}}
	blob, meta := filepath.Join(dir, "blob"), filepath.Join(dir, "meta")
	write(t, filepath.Join(s.lowers[0], "big"), strings.Repeat("0123456789abcdef", 1<<15), 33, 0o644)
	chunked := exec.Command("mkfs.erofs", "--chunksize=4096", "--blobdev="+blob, meta, s.lowers[0]).Run() == nil
	for name, c := range map[string]struct {
		program string
		mounts  []Mount
		file    string
	}{
		"bind of a layer": {"", []Mount{layers[0], {Type: "format/bind", Source: "{{ mount 0 }}", Options: []string{"ro", "rbind"}}}, "layer2"},
		"mapped bind of a layer": {"", []Mount{layers[0], {Type: "format/bind", Source: "{{ mount 0 }}",
			Options: []string{"uidmap=" + testMap, "gidmap=" + testMap, "ro", "rbind"}}}, "layer2"},
		"bind of a made directory": {"mkfs.ext4", []Mount{mkfs, {Type: "format/mkdir/bind", Source: "{{ mount 0 }}/upper",
			Options: []string{"X-containerd.mkdir.path={{ mount 0 }}/upper:0750:5:6", "rw", "rbind"}}}, ""},
		"loop device": {"", []Mount{{Type: "loop", Source: layers[1].Source, Options: []string{"ro"}}, {Type: "format/erofs", Source: "{{ mount 0 }}", Options: []string{"ro"}}}, "layer1"},
		"source":      {"", []Mount{layers[1], {Type: "format/erofs", Source: "{{ source 0 }}", Options: []string{"ro", "loop"}}}, "layer1"},
		"file on an earlier mount": {"", []Mount{{Type: "bind", Source: dir, Options: []string{"rbind"}}, {Type: "format/erofs", Source: "{{ mount 0 }}/1.erofs",
			Options: []string{"ro", "loop"}}}, "layer1"},
		"several files":            {"", []Mount{{Type: "erofs", Source: meta, Options: []string{"ro", "loop", "device=" + blob}}}, "big"},
		"several files on devices": {"", []Mount{{Type: "erofs", Source: meta, Options: []string{"ro", "loop", "direct-io", "device=" + blob}}}, "big"},
		"erofs without loop":       {"", []Mount{{Type: "erofs", Source: layers[1].Source, Options: []string{"ro"}}}, "layer1"},
		"mixed lowers": {"", []Mount{layers[0], {Type: "format/overlay", Source: "overlay",
			Options: []string{"lowerdir={{ mount 0 }}/dir:" + s.lowers[1]}}}, "layer1"},
		"overlay as a lower": {"", []Mount{layers[0], layers[1], {Type: "format/overlay", Source: "overlay", Options: []string{"lowerdir={{ overlay 0 1 }}"}},
			{Type: "format/overlay", Source: "overlay", Options: []string{"lowerdir={{ mount 2 }}", "upperdir=" + s.upper, "workdir=" + s.work}}}, "layer1"},
		"below the root": {"", []Mount{layers[0], {Type: "format/bind", Source: "{{ mount 0 }}", Options: []string{"ro", "rbind"}},
			{Type: "tmpfs", Source: "tmpfs", Target: "/dir"}}, "dir"},
		"xfs": {"mkfs.xfs", []Mount{{Type: "mkfs/xfs", Source: filepath.Join(dir, "x.img"), Options: []string{"X-containerd.mkfs.fs=xfs", "X-containerd.mkfs.size=320m", "loop"}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.program != "" {
				needProgram(t, c.program)
			}
			if strings.HasPrefix(name, "several") && !chunked {
				t.Skip("mkfs.erofs makes no images of several files")
			}
			if name == "mixed lowers" {
				must(t, os.MkdirAll(filepath.Join(s.lowers[0], "dir"), 0o755))
				erofsImage(t, s.lowers[0], layers[0].Source)
			}
			if name == "below the root" {
				must(t, os.MkdirAll(filepath.Join(s.lowers[0], "dir"), 0o755))
				erofsImage(t, s.lowers[0], layers[0].Source)
			}
			unchanged(t)
			inside(t, assemble(t, Options{}, c.mounts...), func(root string) error {
				if name == "bind of a made directory" {
					var st unix.Stat_t
					must(t, unix.Stat(root, &st))
					if st.Uid != 5 || st.Gid != 6 || st.Mode&0o7777 != 0o750 {
						t.Errorf("made with %d:%d %o", st.Uid, st.Gid, st.Mode)
					}
				}
				b, err := os.Lstat(filepath.Join(root, c.file))
				if err == nil && c.file == "big" && b.Size() != 1<<19 {
					t.Errorf("big has %d bytes", b.Size())
				}
				if err == nil && c.file == "big" {
					_, err = os.ReadFile(filepath.Join(root, c.file))
				}
				return err
			})
			noLoops(t, dir)
		})
	}
}

// What is not understood is refused by name, before anything is done.
func TestClaimsRefused(t *testing.T) {
	requireRoot(t)
	dir, s, layers := erofsLayers(t, 1)
	overlay := func(kind string, options ...string) []Mount {
		return []Mount{layers[0], {Type: kind, Source: "overlay", Options: append([]string{"lowerdir={{ mount 0 }}", "upperdir=" + s.upper, "workdir=" + s.work}, options...)}}
	}
	mkfs := func(source string, options ...string) []Mount {
		return []Mount{{Type: "mkfs/ext4", Source: source, Options: append(options, "loop")}}
	}
	verity := layers[0]
	verity.Options = []string{"ro", "loop", "X-containerd.dmverity=/x/.dmverity"}
	for name, c := range map[string]struct {
		mounts []Mount
		kind   error
		says   string
	}{
		"dm-verity":            {append([]Mount{verity}, overlay("format/overlay")[1:]...), ErrVerity, "X-containerd.dmverity="},
		"dm-verity alone":      {[]Mount{verity}, ErrVerity, "dm-verity"},
		"unknown transform":    {overlay("format/shred/overlay"), ErrInvalid, "shred"},
		"no type":              {overlay("format/"), ErrInvalid, "no file system type"},
		"template of itself":   {overlay("format/overlay", "x={{ mount 1 }}"), ErrInvalid, "mount 1 is not among"},
		"unknown template":     {overlay("format/overlay", "x={{ mount 0 | html }}"), ErrInvalid, "html"},
		"mkdir before format":  {overlay("mkdir/format/overlay", "X-containerd.mkdir.path={{ mount 0 }}/x"), ErrInvalid, "mkdir.path"},
		"mkdir elsewhere":      {overlay("format/mkdir/overlay", "X-containerd.mkdir.path=/etc/x"), ErrInvalid, "/etc/x"},
		"mkdir of a mount":     {overlay("format/mkdir/overlay", "X-containerd.mkdir.path={{ mount 0 }}"), ErrInvalid, "mkdir"},
		"mkdir without prefix": {overlay("format/overlay", "X-containerd.mkdir.path="+dir+"/x"), ErrInvalid, "mkdir"},
		"unknown mkdir option": {overlay("mkdir/overlay", "X-containerd.mkdir.name=x"), ErrInvalid, "mkdir.name"},
		"unknown option":       {overlay("format/overlay", "X-containerd.other=x"), ErrInvalid, "X-containerd.other"},
		"mkfs without size":    {mkfs(dir + "/i"), ErrInvalid, "mkfs.size"},
		"mkfs elsewhere":       {mkfs("/etc/i", "X-containerd.mkfs.size=1m"), ErrInvalid, "/etc/i"},
		"mkfs of another kind": {mkfs(dir+"/i", "X-containerd.mkfs.size=1m", "X-containerd.mkfs.fs=vfat"), ErrInvalid, "vfat"},
		"mkfs option as uuid":  {mkfs(dir+"/i", "X-containerd.mkfs.size=1m", "X-containerd.mkfs.uuid=-n"), ErrInvalid, "UUID"},
		"unknown mkfs option":  {mkfs(dir+"/i", "X-containerd.mkfs.force"), ErrInvalid, "force"},
		"unused device":        {[]Mount{{Type: "loop", Source: layers[0].Source}}, ErrInvalid, "loop device"},
		"root with a target":   {append(layers[:1:1], Mount{Type: "format/tmpfs", Target: "{{ source 0 }}"}), ErrNeedsPath, "not the root"},
		"upper and lower, mapped": {append(layers[:1:1], Mount{Type: "format/overlay", Options: []string{"lowerdir={{ mount 0 }}",
			"upperdir={{ mount 0 }}/dir", "workdir={{ mount 0 }}/x", "uidmap=" + testMap, "gidmap=" + testMap}}), nil, "same mount"},
		"upper and work apart": {append(layers[:1:1], Mount{Type: "format/overlay", Options: []string{"lowerdir={{ mount 0 }}",
			"upperdir={{ mount 0 }}/dir", "workdir=" + s.work}}), nil, ""},
		"no such directory":    {overlay("format/mkdir/overlay", "X-containerd.mkdir.path="+dir+"/a/b"), unix.ENOENT, "mkdir"},
		"through a link":       {overlay("format/mkdir/overlay", "X-containerd.mkdir.path="+dir+"/out/x"), unix.EXDEV, "mkdir"},
		"another mode":         {overlay("format/mkdir/overlay", "X-containerd.mkdir.path="+dir+"/s:0700"), nil, "exists with mode 0755"},
		"a file":               {overlay("format/mkdir/overlay", "X-containerd.mkdir.path="+dir+"/1.erofs"), unix.ENOTDIR, "mkdir"},
		"read-only mount":      {overlay("format/mkdir/overlay", "X-containerd.mkdir.path={{ mount 0 }}/x"), unix.EROFS, "{mount 0}/x"},
		"too small":            {mkfs(dir+"/i", "X-containerd.mkfs.size=1k"), nil, "mkfs.ext4"},
		"no image":             {append([]Mount{{Type: "erofs", Source: dir + "/none", Options: []string{"ro", "loop"}}}, overlay("format/overlay")[1:]...), unix.ENOENT, "none"},
		"not an image":         {append([]Mount{{Type: "erofs", Source: "/proc/self/exe", Options: []string{"ro", "loop"}}}, overlay("format/overlay")[1:]...), nil, "erofs"},
		"no lower directory":   {append(layers[:1:1], Mount{Type: "format/overlay", Options: []string{"lowerdir={{ mount 0 }}:{{ mount 0 }}/none"}}), unix.ENOENT, "{mount 0}/none"},
		"lower through a link": {append(layers[:1:1], Mount{Type: "format/overlay", Options: []string{"lowerdir={{ mount 0 }}:{{ mount 0 }}/link"}}), nil, "link"},
	} {
		t.Run(name, func(t *testing.T) {
			_ = os.Symlink("/tmp", dir+"/out")
			defer os.Remove(dir + "/out")
			unchanged(t)
			before := listing(t, dir)
			tree, err := Assemble(t.Context(), c.mounts, Options{})
			if err == nil {
				must(t, tree.Close())
				t.Fatal("no error")
			}
			var e *MountError
			if !errors.As(err, &e) || c.kind != nil && !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v that says %q", err, c.kind, c.says)
			}
			if after := listing(t, dir); after != before {
				t.Errorf("files before:\n%s\nafter:\n%s", before, after)
			}
			noLoops(t, dir)
		})
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	return fmt.Sprint(entries)
}

// The way to bind that kernels before 6.15 need.
func TestBindPrivately(t *testing.T) {
	requireRoot(t)
	_, _, layers := erofsLayers(t, 1)
	unchanged(t)
	for rest, sees := range map[string]string{"": "layer1", "dir": "hidden"} {
		a := &assembly{ctx: t.Context(), workshop: usedWorkshop(t)}
		r, err := parse(layers[0], a.options.Base.number)
		must(t, err)
		must(t, a.makeEarlier(r))
		fd, err := a.bindPrivately(r, a.made[0], rest, unix.AT_RECURSIVE)
		must(t, err)
		inside(t, &Tree{file: os.NewFile(uintptr(fd), "tree"), held: a.held}, func(root string) error {
			_, err := os.Stat(filepath.Join(root, sees))
			return err
		})
	}
}

// Whatever mounts there are, parsing ends in requests or an error, and what is
// to be made is in a place where that may be.
func FuzzTransform(f *testing.F) {
	f.Add("format/mkdir/overlay", "overlay", "X-containerd.mkdir.path={{ mount 0 }}/upper:0755", "lowerdir={{ overlay 0 0 }}")
	f.Add("mkfs/ext4", "/io.containerd.x/y", "X-containerd.mkfs.size=1m", "X-containerd.mkfs.uuid=0")
	f.Add("mkdir/format/mkfs/bind", "{{ mount 0 }}/a", "X-containerd.mkdir.path=/io.containerd.x/../y", "ro")
	f.Fuzz(func(t *testing.T, kind, source, option1, option2 string) {
		mounts := []Mount{{Type: "tmpfs", Source: "tmpfs"}, {Type: kind, Source: source, Options: []string{option1, option2}}}
		requests, first, err := parseAll(mounts, (*BaseCache)(nil).number)
		if err != nil {
			return
		}
		if first < 0 || first >= len(requests) {
			t.Fatalf("root %d of %d", first, len(requests))
		}
		for _, r := range requests {
			for _, p := range r.due {
				var at place
				switch p := p.(type) {
				case directory:
					at = p.place
				case image:
					at = p.place
				}
				_, _, earlier := cutMountName(at.root)
				plugin := strings.HasPrefix(filepath.Base(at.root), pluginDir)
				if !earlier && !plugin || !filepath.IsLocal(at.name) || at.name == "." {
					t.Fatalf("%+v", at)
				}
			}
		}
	})
}
