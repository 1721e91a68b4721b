package e2e

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"syscall"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"containerd-shim-numa-v1/test/rig"
)

// buffer collects a stream that is written while the test reads.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.b.Bytes())
}

func (b *buffer) String() string { return string(b.Bytes()) }

// settings are what options change about a container.
type settings struct {
	id       string
	image    containerd.Image
	stdin    io.Reader
	terminal bool
	creator  cio.Creator // instead of streams
	spec     []oci.SpecOpts
	snapshot []snapshots.Opt
	mounts   []mount.Mount // of the root filesystem, instead of a snapshot's
	sandbox  string
	runtime  any // the runtime's options
}

type option func(*settings)

func withID(id string) option             { return func(c *settings) { c.id = id } }
func withImage(i containerd.Image) option { return func(c *settings) { c.image = i } }
func withStdin(r io.Reader) option        { return func(c *settings) { c.stdin = r } }
func withIO(creator cio.Creator) option   { return func(c *settings) { c.creator = creator } }
func withRootfs(ms ...mount.Mount) option { return func(c *settings) { c.mounts = ms } }
func withSpec(opts ...oci.SpecOpts) option {
	return func(c *settings) { c.spec = append(c.spec, opts...) }
}

func withTerminal() option {
	return func(c *settings) {
		c.terminal = true
		c.spec = append(c.spec, oci.WithTTY)
	}
}

// withUID runs the process as that user of the container.
func withUID(uid uint32) option {
	return withSpec(func(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
		spec.Process.User.UID = uid
		return nil
	})
}

// process is a started or startable process, init or exec, and its streams.
type process struct {
	*scene
	containerd.Process
	stdout, stderr buffer
	exited         <-chan containerd.ExitStatus
}

// container is a container with its task, whose init the process is.
type container struct {
	process
	task      containerd.Task
	container containerd.Container
}

// define makes a container and its snapshot, but no task.
func (s *scene) define(args []string, opts ...option) (containerd.Container, *settings, error) {
	set := &settings{image: s.image}
	for _, o := range opts {
		o(set)
	}
	if set.id == "" {
		set.id = s.newID()
	}
	spec := append([]oci.SpecOpts{oci.WithProcessArgs(args...), oci.WithEnv([]string{"PATH=/bin"})}, set.spec...)
	copts := []containerd.NewContainerOpts{
		containerd.WithRuntime(*runtimeFlag, set.runtime),
		containerd.WithSnapshotter(rig.Snapshotter),
		containerd.WithImage(set.image),
		containerd.WithNewSpec(spec...),
	}
	if set.mounts == nil {
		copts = append(copts, containerd.WithNewSnapshot(set.id, set.image, set.snapshot...))
	}
	if set.sandbox != "" {
		copts = append(copts, containerd.WithSandbox(set.sandbox))
	}
	c, err := s.daemon.Client().NewContainer(s.ctx, set.id, copts...)
	return c, set, err
}

// create makes a container and its task, not started.
func (s *scene) create(args []string, opts ...option) *container {
	s.t.Helper()
	c, err := s.tryCreate(args, opts...)
	s.must(err)
	return c
}

func (s *scene) tryCreate(args []string, opts ...option) (*container, error) {
	definition, set, err := s.define(args, opts...)
	if err != nil {
		return nil, err
	}
	c := &container{process: process{scene: s}, container: definition}
	creator := set.creator
	if creator == nil {
		creator = c.streams(set.stdin, set.terminal)
	}
	ctx, cancel := context.WithTimeout(s.ctx, bound)
	defer cancel()
	if c.task, err = definition.NewTask(ctx, creator, containerd.WithRootFS(set.mounts)); err != nil {
		return c, err
	}
	c.Process = c.task
	s.keepIO(c.task.IO())
	c.exited, err = c.task.Wait(s.ctx)
	return c, err
}

// run makes a container and starts it.
func (s *scene) run(args []string, opts ...option) *container {
	s.t.Helper()
	c := s.create(args, opts...)
	s.must(c.Start(s.ctx))
	return c
}

// exec makes a process in the container and starts it.
func (c *container) exec(id string, args []string, opts ...option) *process {
	c.t.Helper()
	p := c.execCreate(id, args, opts...)
	c.must(p.Start(c.ctx))
	return p
}

func (c *container) execCreate(id string, args []string, opts ...option) *process {
	c.t.Helper()
	p, err := c.tryExec(id, args, opts...)
	c.must(err)
	return p
}

func (c *container) tryExec(id string, args []string, opts ...option) (*process, error) {
	set := &settings{}
	for _, o := range opts {
		o(set)
	}
	spec, err := c.container.Spec(c.ctx)
	if err != nil {
		return nil, err
	}
	spec.Process.Args, spec.Process.Terminal = args, set.terminal
	for _, o := range set.spec {
		if err := o(c.ctx, nil, nil, spec); err != nil {
			return nil, err
		}
	}
	p := &process{scene: c.scene}
	creator := set.creator
	if creator == nil {
		creator = p.streams(set.stdin, set.terminal)
	}
	if p.Process, err = c.task.Exec(c.ctx, id, spec.Process, creator); err != nil {
		return nil, err
	}
	c.keepIO(p.IO())
	p.exited, err = p.Wait(c.ctx)
	return p, err
}

func (p *process) streams(stdin io.Reader, terminal bool) cio.Creator {
	opts := []cio.Opt{cio.WithStreams(stdin, &p.stdout, &p.stderr)}
	if terminal {
		opts = append(opts, cio.WithTerminal)
	}
	return cio.NewCreator(opts...)
}

// status waits for the exit.
func (p *process) status() uint32 {
	p.t.Helper()
	return p.exit().ExitCode()
}

func (p *process) exit() containerd.ExitStatus {
	p.t.Helper()
	select {
	case status := <-p.exited:
		if err := status.Error(); err != nil {
			p.t.Fatalf("wait for %s: %v", p.ID(), err)
		}
		return status
	case <-timeout():
		p.t.Fatalf("%s has not exited within %s; it printed %q %q", p.ID(), bound, p.stdout.String(), p.stderr.String())
		panic("unreachable")
	}
}

// delete deletes an exited process and waits until its output has arrived.
func (p *process) delete() *containerd.ExitStatus {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, bound)
	defer cancel()
	status, err := p.Delete(ctx)
	p.must(err)
	return status
}

// remove deletes the exited task and the container with its snapshot.
func (c *container) remove() {
	c.t.Helper()
	c.delete()
	c.must(c.container.Delete(c.ctx, containerd.WithSnapshotCleanup))
}

// finish waits for the exit, removes the container and returns the status.
func (c *container) finish() uint32 {
	c.t.Helper()
	code := c.status()
	c.remove()
	return code
}

// stop kills init and finishes.
func (c *container) stop() uint32 {
	c.t.Helper()
	c.must(c.Kill(c.ctx, syscall.SIGKILL))
	return c.finish()
}

// awaitOutput waits until the process has printed text.
func (p *process) awaitOutput(text string) {
	p.t.Helper()
	if !rig.Eventually(bound, func() bool { return strings.Contains(p.stdout.String(), text) }) {
		p.t.Fatalf("%s did not print %q; it printed %q, and %q as errors", p.ID(), text, p.stdout.String(), p.stderr.String())
	}
}

// wantOutput waits until the process has printed text and compares all that it
// has printed. Its exit may be told before its output has arrived; only a
// Delete waits for that.
func (p *process) wantOutput(text string) {
	p.t.Helper()
	rig.Eventually(bound, func() bool { return len(p.stdout.String()) >= len(text) })
	want(p.t, "output of "+p.ID(), p.stdout.String(), text)
}

// cgroup is the container's cgroup path below each hierarchy.
func (c *container) cgroup() string {
	c.t.Helper()
	spec, err := c.container.Spec(c.ctx)
	c.must(err)
	return spec.Linux.CgroupsPath
}

// withUserNamespace runs the container in a user namespace whose root is the
// given host id, with the image's layers idmapped to it.
func withUserNamespace(host uint32) option {
	return func(c *settings) {
		m := rig.IDMapping(host)
		c.spec = append(c.spec, oci.WithUserNamespace(m, m))
		c.snapshot = append(c.snapshot, containerd.WithUserNSRemapperLabels(m, m))
	}
}
