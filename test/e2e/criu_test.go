package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"

	"containerd-shim-numa-v1/test/rig"
	"containerd-shim-numa-v1/test/vm"
)

// criuDir is where the shims find criu, if it is there.
func criuDir() string {
	if *criuFlag != "" {
		return *criuFlag
	}
	return vm.CriuDir()
}

// fetchCriu has Debian's criu in the cache.
var fetchCriu = sync.OnceValue(func() error {
	if *criuFlag != "" {
		return nil
	}
	return vm.FetchCriu(context.Background())
})

// imagePaths reports whether containerd passes on where images are to be, or
// are. 1.7 does so for the runtime named io.containerd.runc.v2 alone.
func imagePaths() bool { return !ours() || !strings.HasPrefix(shared.Version, "1.") }

// beginWithCriu skips where there is no criu that works on this kernel, or
// what the test needs is not supported. criu's own cache of what the kernel can do is in every census.
func beginWithCriu(t *testing.T, supported bool) *scene {
	t.Helper()
	if !supported {
		skip(t, "containerd 1.7 takes the path of images from runc's shim only: TestCheckpointImage is for it")
	}
	if crun() {
		skip(t, "Debian's crun is built without checkpoints")
	}
	if err := fetchCriu(); err != nil {
		skip(t, fmt.Sprintf("needs criu, which cannot be fetched: %v", err))
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(criuDir(), "criu"), "check").CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("needs a criu that works on this kernel: criu check: %v: %s", err, out))
	}
	return begin(t)
}

// counter counts in memory, and writes each number to its output and to a file
// that it keeps open.
var counter = []string{"/bin/sh", "-c", "exec 3>/data/numbers; i=0; while :; do i=$((i+1)); echo $i; echo $i >&3; sleep 0.05; done"}

// checkpoint writes a container's images to a new directory.
func (c *container) checkpoint(o *options.CheckpointOptions) (images string, err error) {
	c.t.Helper()
	if o.ImagePath == "" {
		o.ImagePath = c.t.TempDir()
	}
	packed, err := typeurl.MarshalAnyToProto(o)
	c.must(err)
	_, err = c.daemon.Client().TaskService().Checkpoint(c.ctx, &tasks.CheckpointTaskRequest{ContainerID: c.ID(), Options: packed})
	return o.ImagePath, errgrpc.ToNative(err)
}

// restore makes a task of the container from images, not started.
func (c *container) restore(images string, opts ...option) *container {
	c.t.Helper()
	r, err := c.tryRestore(images, opts...)
	c.must(err)
	return r
}

func (c *container) tryRestore(images string, opts ...option) (*container, error) {
	set := &settings{}
	for _, o := range opts {
		o(set)
	}
	r := &container{process: process{scene: c.scene}, container: c.container}
	var err error
	r.task, err = c.container.NewTask(c.ctx, r.streams(set.stdin, set.terminal), containerd.WithRestoreImagePath(images))
	if err != nil {
		return nil, err
	}
	r.Process = r.task
	c.keepIO(r.task.IO())
	r.exited, err = r.task.Wait(c.ctx)
	return r, err
}

// numbers are those that the counter has printed, without one that may have
// been cut off.
func (c *container) numbers() (ns []int) {
	c.t.Helper()
	for line := range strings.Lines(c.stdout.String()) {
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			c.t.Fatalf("the counter printed %q", line)
		}
		if strings.HasSuffix(line, "\n") {
			ns = append(ns, n)
		}
	}
	return ns
}

// counts waits until the counter has printed n more numbers, and returns the
// last.
func (c *container) counts(n int) int {
	c.t.Helper()
	had := len(c.numbers())
	if !rig.Eventually(bound, func() bool { return len(c.numbers()) >= had+n }) {
		c.t.Fatalf("the counter does not count; it printed %q", c.stdout.String())
	}
	ns := c.numbers()
	return ns[len(ns)-1]
}
