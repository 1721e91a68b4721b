package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"containerd-shim-numa-v1/test/rig"
)

const (
	erofsSnapshotter = "erofs"
	nodeSettings     = "/etc/containerd-shim-numa/config.toml"

	// erofsImages makes writable layers into images of their own.
	erofsImages = "[plugins.'io.containerd.snapshotter.v1.erofs']\n  default_size = '32MiB'\n"
)

// erofsDiffers are what makes layers into erofs images. containerd's differ
// for that needs erofs-utils 1.6, which read tar archives; without it the
// snapshotter makes images of unpacked directories.
func erofsDiffers() string {
	help, err := exec.Command("mkfs.erofs", "--help").CombinedOutput()
	if err != nil || !strings.Contains(string(help), "--tar=") {
		return ""
	}
	return "[plugins.'io.containerd.service.v1.diff-service']\n  default = ['erofs', 'walking']\n"
}

// TestErofsSnapshotter runs an image of many erofs layers twice: mounted by
// containerd, and by the shim, which claims the mounts. The container is the
// same; the host's mount table does not change with claims.
func TestErofsSnapshotter(t *testing.T) {
	if !ours() {
		skip(t, "the setting is this project's")
	}
	if !detached() {
		skip(t, "it has settings of the node of its own, without the OCI runtime")
	}
	if strings.HasPrefix(shared.Version, "1.") {
		skip(t, "containerd has no erofs snapshotter and no mount manager before 2.1")
	}
	for _, program := range []string{"mkfs.erofs", "mkfs.ext4"} {
		if _, err := exec.LookPath(program); err != nil {
			skip(t, "no "+program)
		}
	}
	if table, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(table), "\terofs\n") {
		skip(t, "no erofs in this kernel")
	}
	for name, c := range map[string]struct {
		extra string
		opts  map[string][]option
	}{
		"directories": {"", map[string][]option{"plain": nil, "user namespace": {withUserNamespace(mappedRoot)}}},
		"images":      {erofsImages, map[string][]option{"plain": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			s := beginErofs(t, "erofs-"+name, erofsDiffers()+c.extra)
			for kind, opts := range c.opts {
				trees := map[bool]string{}
				for _, claims := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s, claims %v", kind, claims), func(t *testing.T) {
						s := &scene{fixture: s.fixture, t: t, ctx: s.ctx}
						defer s.removeAll()
						s.claim(claims)
						trees[claims] = s.runErofs(claims, opts...)
					})
				}
				want(t, kind+": tree of mounts that the shim made", trees[true], trees[false])
				want(t, kind+": tree", trees[true], s.tree.String())
			}
		})
	}
}

// beginErofs starts a containerd with the erofs snapshotter, unpacks the
// many-layered image there, and lets the node's settings be written.
func beginErofs(t *testing.T, name, config string) *scene {
	t.Helper()
	ownEtc(t)
	s := beginApart(t, name, config)
	var err error
	s.image, s.tree, err = s.daemon.ImportLayered(s.ctx, "rig.test/erofs:1", *layersFlag)
	s.must(err)
	s.must(s.image.Unpack(s.ctx, erofsSnapshotter))
	return s
}

// beginApart starts a containerd for this test alone, with config added to its
// configuration.
func beginApart(t *testing.T, name, config string) *scene {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	dir, err := shimDir()
	f := *shared
	s := &scene{fixture: &f, t: t, ctx: ctx}
	s.must(err)
	f.daemon, err = rig.StartDaemon(ctx, rig.DaemonConfig{Machine: shared.Machine, Name: name, ShimDir: dir, Debug: flags.Debug, Extra: config})
	s.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(f.daemon.Log())
		}
		if err := f.daemon.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ownEtc lets the test write below /etc without the host's seeing it.
func ownEtc(t *testing.T) {
	t.Helper()
	dir := filepath.Join(shared.Dir, "etc")
	mounted := func(err error) {
		if err != nil {
			t.Fatalf("make a private /etc: %v", err)
		}
	}
	mounted(os.MkdirAll(dir, 0o755))
	mounted(mountTmpfs(dir))
	t.Cleanup(func() { mounted(unmount(dir)) })
	mounted(privateEtc(dir))
	t.Cleanup(func() { mounted(unix.Unmount("/etc", unix.MNT_DETACH)) })
}

// claim writes the node's settings.
func (s *scene) claim(claims bool) {
	s.must(os.MkdirAll(filepath.Dir(nodeSettings), 0o755))
	s.must(os.WriteFile(nodeSettings, fmt.Appendf(nil, "rootfs.claims = %v\n", claims), 0o600))
	// What containerd 2.2 and 2.3 ask.
	dir, err := shimDir()
	s.must(err)
	out, err := exec.Command(filepath.Join(dir, "containerd-shim-numa-v1"), "-info").Output()
	s.must(err)
	var info types.RuntimeInfo
	s.must(proto.Unmarshal(out, &info))
	annotation := ""
	if claims {
		annotation = "erofs,loop,format/*,mkdir/*,mkfs/*"
	}
	want(s.t, "annotation of -info", info.Annotations["containerd.io/runtime-allow-mounts"], annotation)
}

// runErofs runs a container that writes, and gives the tree that it sees.
func (s *scene) runErofs(claims bool, opts ...option) string {
	s.t.Helper()
	set := &settings{id: s.newID()}
	for _, o := range opts {
		o(set)
	}
	script := "/payload tree /data; echo new > /data/added-001 && cat /data/added-001 >&2; /payload wait"
	definition, err := s.daemon.Client().NewContainer(s.ctx, set.id,
		containerd.WithRuntime(*runtimeFlag, nil), containerd.WithSnapshotter(erofsSnapshotter), containerd.WithImage(s.image),
		containerd.WithNewSnapshot(set.id, s.image, set.snapshot...),
		containerd.WithNewSpec(append([]oci.SpecOpts{oci.WithProcessArgs("/bin/sh", "-c", script), oci.WithEnv([]string{"PATH=/bin"})}, set.spec...)...))
	s.must(err)
	before := rig.MountTable()
	watch, err := rig.WatchMounts()
	s.must(err)
	c := &container{process: process{scene: s}, container: definition}
	c.task, err = definition.NewTask(s.ctx, c.streams(nil, false))
	s.must(err)
	c.Process = c.task
	s.keepIO(c.task.IO())
	c.exited, err = c.task.Wait(s.ctx)
	s.must(err)
	s.must(c.Start(s.ctx))
	c.awaitOutput("ready")
	more := len(rig.MountTable()) - len(before)
	c.stop()
	seen := watch.Stop()
	s.t.Logf("claims %v: %d wake-ups, %d entries more while it ran, %d after it", claims, seen.Wakeups, more, seen.Left)
	if claims {
		want(s.t, "changes of the host's mount table", seen, rig.MountActivity{})
		want(s.t, "entries more while it ran", more, 0)
	} else if more < *layersFlag {
		s.t.Errorf("%d entries more while it ran: containerd has not mounted the layers", more)
	}
	want(s.t, "what was written", c.stderr.String(), "new\n")
	return strings.TrimSuffix(c.stdout.String(), "ready\n")
}
