package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestBadRootfs gives mounts of the root file system that cannot be made, with
// and without a user namespace.
func TestBadRootfs(t *testing.T) {
	s := begin(t)
	v := s.victim()
	for _, c := range badRootfs(t) {
		for suffix, opts := range map[string][]option{"": nil, ", user namespace": {withUserNamespace(mappedRoot)}} {
			s.sub(t, c.name+suffix, func() {
				if c.ours && !ours() {
					skip(s.t, "the runtime does what is asked")
				}
				opts := append(opts, withRootfs(c.mounts...), withIO(cio.NullIO))
				v.refused(v.attempt([]string{"/bin/true"}, opts...), c.words)
			})
		}
	}
	v.stop()
}

type badMountsOfRoot struct {
	name   string
	mounts []mount.Mount
	words  string
	ours   bool // other shims do not refuse it
}

func badRootfs(t *testing.T) []badMountsOfRoot {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a", "b", "upper", "work"} {
		if err := os.Mkdir(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(at("file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a", at("link")); err != nil {
		t.Fatal(err)
	}
	one := func(kind, source string, options ...string) []mount.Mount {
		return []mount.Mount{{Type: kind, Source: source, Options: options}}
	}
	overlay := func(lowers string, options ...string) []mount.Mount {
		return one("overlay", "overlay", append([]string{"lowerdir=" + lowers}, options...)...)
	}
	two := at("a") + ":" + at("b")
	var parts []string
	for i := range 341 { // user_namespaces(7): 340
		parts = append(parts, fmt.Sprintf("%d:%d:1", 2*i, mappedRoot+3*i))
	}
	many := strings.Join(parts, ",")
	tmpfs := mount.Mount{Type: "tmpfs", Source: "tmpfs"}
	return []badMountsOfRoot{
		{name: "missing source", mounts: one("bind", "/no/such/root", "rbind", "rw"), words: `mount bind "/no/such/root" on "/" of the root filesystem: open_tree: no such file`},
		{name: "file as root", mounts: one("bind", at("file"), "rbind"), words: "attach inherited root filesystem to"},
		{name: "relative source", mounts: one("bind", "etc", "rbind"), words: "bind source is not an absolute path", ours: true},
		{name: "unknown file system", mounts: one("bogusfs", "none"), words: "fsopen: no such device"},
		{name: "no file system", mounts: one("", "/etc"), words: "no file system type"},
		{name: "no image in the file", mounts: one("ext4", at("file"), "loop"), words: `mount ext4 "` + at("file")},
		{name: "missing lower layer", mounts: overlay("/no/such/layer:" + at("a")), words: "/no/such: no such file or directory"},
		{name: "file as lower layer", mounts: overlay(at("file") + ":" + at("a")), words: at("file") + ": not a directory"},
		{name: "link as lower layer", mounts: overlay(at("link") + ":" + at("a")), words: "symbolic link below the layers' common directory", ours: true},
		{name: "process's directory as lower layer", mounts: overlay("/proc/self/cwd:" + at("a")), words: "symbolic link", ours: true},
		{name: "overlay, no layers", mounts: one("overlay", "overlay"), words: "no lower directory"},
		{name: "overlay of one layer", mounts: overlay(at("a")), words: "a single lower directory", ours: true},
		{name: "empty name of a layer", mounts: overlay(at("a") + "::" + at("b") + ":"), words: "check lowerdir"},
		{name: "list that ends in a backslash", mounts: overlay(two + `\`), words: "ends in a backslash"},
		{name: "relative layer", mounts: overlay("a:" + at("b")), words: "check lowerdir a: not an absolute path"},
		{name: "colon that is not escaped", mounts: overlay(at("a:b") + ":" + at("b")), words: "check lowerdir b: not an absolute path"},
		{name: "layer above its directory", mounts: overlay(dir + "/a/../b:" + at("a")), words: `".." in the path`, ours: true},
		{name: "layer twice", mounts: overlay(at("a") + ":" + at("a")), words: "is, or lies in, another"},
		{name: "upper is lower", mounts: overlay(at("a"), "upperdir="+at("a"), "workdir="+at("work")), words: "is, or lies in, another"},
		{name: "upper is work", mounts: overlay(at("a"), "upperdir="+at("upper"), "workdir="+at("upper")), words: "fsconfig create: invalid argument"},
		{name: "upper without work", mounts: overlay(at("a"), "upperdir="+at("upper")), words: "one without the other"},
		{name: "missing upper", mounts: overlay(at("a"), "upperdir="+at("none"), "workdir="+at("work")), words: at("none") + ": no such file or directory"},
		{name: "unknown option", mounts: overlay(two, "bogus=1"), words: "Unknown parameter 'bogus'"},
		{name: "bad value", mounts: overlay(two, "index=maybe"), words: "Bad value for 'index'"},
		{name: "NUL in an option", mounts: overlay(two, "a\x00b"), words: "NUL in option"},
		{name: "second mount fails", mounts: []mount.Mount{tmpfs, {Type: "bogusfs", Source: "none", Target: "sub"}}, words: "fsopen: no such device"},
		{name: "missing target", mounts: []mount.Mount{tmpfs, {Type: "tmpfs", Source: "tmpfs", Target: "x"}}, words: "open target x: no such file"},
		{name: "target that escapes", mounts: []mount.Mount{tmpfs, {Type: "tmpfs", Source: "tmpfs", Target: "../../.." + dir}}, words: "open target"},
		{name: "malformed id mapping", mounts: overlay(two, "uidmap=x", "gidmap=y"), words: `"x" is not container:host:size`},
		{name: "id mapping of users only", mounts: overlay(two, "uidmap=0:1:1"), words: "one without the other", ours: true},
		{name: "empty id mapping", mounts: overlay(two, "uidmap=0:100000:0", "gidmap=0:100000:1"), words: "0:100000:0 is empty"},
		{name: "overlapping id mapping", mounts: overlay(two, "uidmap=0:100000:10,5:200000:10", "gidmap=0:100000:10"), words: "overlap in the container"},
		{name: "id mapping past the last id", mounts: overlay(two, "uidmap=0:4294967290:100", "gidmap=0:1:1"), words: "passes the last ID"},
		{name: "id mapping of too many parts", mounts: overlay(two, "uidmap="+many, "gidmap="+many), words: "341 ranges, the kernel takes 340", ours: true},
	}
}

// TestHostileRootfs runs a root filesystem whose links and whose spec's paths
// lead out of it, or would if they were followed on the host.
func TestHostileRootfs(t *testing.T) {
	for name, opts := range map[string][]option{
		"plain":          nil,
		"user namespace": {withUserNamespace(mappedRoot)},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			v := s.victim()
			dir := t.TempDir()
			root, outside := filepath.Join(dir, "root"), filepath.Join(dir, "outside")
			s.hostileTree(root, outside)
			opts := append(opts, withRootfs(mount.Mount{Type: "bind", Source: root, Options: []string{"rbind", "rw"}}), v.beside(),
				editing(func(spec *oci.Spec) {
					for _, target := range []string{"/absolute/m", "/upwards/m", "/../../../../../.." + outside + "/m", "/dev/links/m"} {
						spec.Mounts = append(spec.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: target})
					}
					spec.Linux.MaskedPaths = append(spec.Linux.MaskedPaths, "/absolute", "/upwards/x")
					spec.Linux.ReadonlyPaths = append(spec.Linux.ReadonlyPaths, "/upwards")
				}))
			c, err := s.tryCreate([]string{"/payload", "exit", "7"}, opts...)
			if err == nil {
				s.must(c.Start(s.ctx))
				want(t, "exit status", c.finish(), 7)
			} else {
				t.Logf("refused: %v", err)
			}
			left, err := os.ReadDir(outside)
			s.must(err)
			if len(left) != 1 || left[0].Name() != "kept" {
				t.Errorf("outside of the root filesystem: %v", left)
			}
			v.unharmed()
			v.stop()
		})
	}
}

// hostileTree makes a root filesystem at root with links to the directory
// outside, which has one file.
func (s *scene) hostileTree(root, outside string) {
	s.t.Helper()
	for _, dir := range []string{root, outside, root + "/proc", root + "/sys", root + "/dev", root + "/run", root + outside} {
		s.must(os.MkdirAll(dir, 0o755))
	}
	s.must(os.Chmod(filepath.Dir(root), 0o755))
	payload, err := os.ReadFile(s.Payload)
	s.must(err)
	s.must(os.WriteFile(root+"/payload", payload, 0o755))
	s.must(os.WriteFile(outside+"/kept", nil, 0o644))
	for name, target := range map[string]string{
		"absolute": outside, "upwards": strings.Repeat("../", 20) + outside, "etc": "/proc/self/root/etc",
		"self": "/proc/self/fd", "loop": "loop",
	} {
		s.must(os.Symlink(target, filepath.Join(root, name)))
	}
	for _, dir := range []string{root, root + outside} {
		s.must(os.Chown(dir, mappedRoot, mappedRoot))
	}
}
