package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/cgroups"
	"containerd-shim-numa-v1/rootfs"
)

// undo is what has to be taken back, last first, if the rest of a request
// fails.
type undo []func()

func (u *undo) push(f func()) { *u = append(*u, f) }

func (u *undo) run() {
	for i := len(*u) - 1; i >= 0; i-- {
		(*u)[i]()
	}
	*u = nil
}

// Create makes a container and its init, which waits for Start; from a
// checkpoint it makes all but the processes, which Start restores.
func (s *Service) Create(ctx context.Context, r *taskv3.CreateTaskRequest) (*taskv3.CreateTaskResponse, error) {
	if err := checkID(r.ID); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(r.Bundle) {
		return nil, invalid("container %q: bundle %q is not an absolute path", r.ID, r.Bundle)
	}
	if err := s.reserve(r.ID); err != nil {
		return nil, err
	}
	c, err := s.create(ctx, r)
	if err != nil {
		s.settle(r.ID, nil)
		log.G(ctx).WithError(err).WithField("id", r.ID).Warn("create failed")
		return nil, err
	}
	// init is the shim's to wait for from here on; its exit may follow the
	// event of its creation at once, but cannot come before it.
	c.mu.Lock()
	c.init.status.to(Created)
	c.created(r)
	pid := c.init.pid()
	c.mu.Unlock()
	s.settle(r.ID, c)
	if child := c.init.child; child != nil {
		go c.awaitInit(child)
		s.confirm(ctx, c, child)
	}
	return &taskv3.CreateTaskResponse{Pid: pid}, nil
}

// create makes everything a container consists of, or nothing.
func (s *Service) create(ctx context.Context, r *taskv3.CreateTaskRequest) (_ *Container, err error) {
	var undone undo
	defer func() {
		if err != nil {
			undone.run()
		}
	}()

	o, err := s.Node.with(r.Options)
	if err != nil {
		return nil, err
	}
	if o.Runtime, err = o.Runtime.resolve(); err != nil {
		return nil, err
	}
	engine, err := s.engine(o.Runtime.Binary)
	if err != nil {
		return nil, err
	}
	spec, err := loadSpec(r.Bundle)
	if err != nil {
		return nil, err
	}
	if err := writeOptions(r.Bundle, o); err != nil {
		return nil, err
	}
	c := &Container{
		id: r.ID, bundle: r.Bundle, sharesPIDs: sharesPIDNamespace(spec), owner: o.owner(spec),
		init:    newProcess("", URIs{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal}),
		execs:   map[string]*process{},
		publish: s.Publisher.Publish, restored: r.Checkpoint != "",
	}
	if err := s.place(ctx, c, o, spec, &undone); err != nil {
		return nil, err
	}
	inherited, release, err := s.prepareRootfs(ctx, c, r, o, spec, &undone)
	if err != nil {
		return nil, err
	}
	defer release()

	c.init.stdio, err = openStdio(ctx, s.Namespace, c.id, c.init.uris, c.owner)
	if err != nil {
		return nil, err
	}
	undone.push(c.init.stdio.close)
	spec.Process.Terminal = r.Terminal

	request := CreateRequest{
		ID: c.id, Bundle: c.bundle, Root: o.root(s.Namespace, c.bundle), Spec: spec,
		Stdio: c.init.stdio.files, Inherited: inherited, Near: c.placed.Near(),
		NoPivotRoot: o.NoPivotRoot, NoNewKeyring: o.NoNewKeyring, SystemdCgroup: o.systemdCgroup(spec),
	}
	if c.restored {
		return c, c.prepareRestore(ctx, engine, RestoreRequest{CreateRequest: request, Images: r.Checkpoint, Work: o.CriuWork})
	}
	c.instance, err = engine.Create(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("OCI runtime create failed: %w", err)
	}
	c.init.child = c.instance.Init()
	undone.push(func() { c.discard(c.init.child) })
	if err := c.init.stdio.run(); err != nil {
		return nil, err
	}
	if err := writeInitPid(c.bundle, c.init.child.Pid()); err != nil {
		return nil, err
	}
	c.watchCgroup(ctx, c.init.child)
	return c, nil
}

// discard ends a container that failed after its init was made, and before
// anybody waits for it.
func (c *Container) discard(init Child) {
	c.closeCgroup()
	if err := init.Signal(sigKill); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.log().WithError(err).Warn("cannot kill init of a container that failed to be created")
	}
	init.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), cleanupBudget)
	defer cancel()
	if err := c.instance.Delete(ctx); err != nil {
		c.log().WithError(err).Warn("cannot remove a container that failed to be created")
	}
}

// watchCgroup begins to watch the cgroup for out-of-memory kills and opens
// what Stats reads. That init waits in the cgroup makes this the earliest
// moment at which nothing can be missed. A container without it is worth more
// than none, so errors are only logged.
func (c *Container) watchCgroup(ctx context.Context, init Child) {
	logger := log.G(ctx).WithField("id", c.id)
	cg, err := cgroups.Load(init.Pid())
	if err != nil {
		logger.WithError(err).Warn("no statistics and no out-of-memory events: cannot open the cgroup")
		return
	}
	c.mu.Lock()
	c.cgroup = cg
	c.mu.Unlock()
	if err := cg.EnableControllers(); err != nil {
		logger.WithError(err).Warn("cannot enable controllers in the container's cgroup")
	}
	c.oom, err = cgroups.WatchOOM(cg, func() { c.outOfMemory() })
	if err != nil {
		logger.WithError(err).Warn("no out-of-memory events")
	}
}

// closeCgroup ends what watchCgroup began.
func (c *Container) closeCgroup() {
	if c.oom != nil {
		c.oom.Stop()
	}
}

// prepareRootfs assembles the root filesystem from the mounts that containerd
// sent and has it attached: by init in its own mount namespace, which is what
// the returned files are for, or on the host where something has to see it
// there. release closes what the shim holds of it once init has been made.
func (s *Service) prepareRootfs(ctx context.Context, c *Container, r *taskv3.CreateTaskRequest, o Options, spec *specs.Spec, undone *undo) (inherited []*os.File, release func(), err error) {
	if len(r.Rootfs) == 0 {
		return nil, func() {}, nil
	}
	target := filepath.Join(c.bundle, rootfsDir)
	if err := os.Mkdir(target, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, nil, fmt.Errorf("directory for the root filesystem: %w", err)
	}
	tree, err := rootfs.Assemble(ctx, mountsOf(r.Rootfs), s.assembly(o, spec, target))
	if err != nil {
		return nil, nil, fmt.Errorf("failed to mount rootfs component: %w", err)
	}
	release = func() { tree.Close() }
	if tree.Host() == "" {
		why := c.whyOnHost(o, spec, target)
		if why == "" {
			if inherited, err = tree.Handover(target); err != nil {
				release()
				return nil, nil, fmt.Errorf("hand over the root filesystem: %w", err)
			}
			c.reportRootfs(tree.Stats())
			return inherited, release, nil
		}
		c.log().Debugf("root filesystem is attached on the host: %s", why)
		if err := tree.Attach(target); err != nil {
			release()
			return nil, nil, fmt.Errorf("attach the root filesystem: %w", err)
		}
	}
	c.hostRootfs = true
	c.reportRootfs(tree.Stats())
	undone.push(func() {
		if err := rootfs.Detach(target); err != nil {
			c.log().WithError(err).Warn("cannot detach the root filesystem of a container that failed to be created")
		}
	})
	return nil, release, nil
}

// assembly is how the root filesystem of a container is to be made.
func (s *Service) assembly(o Options, spec *specs.Spec, target string) rootfs.Options {
	a := rootfs.Options{
		Cache: &s.userns, Workshop: &s.workshop, UserNS: userNSPath(spec), Tier: o.Rootfs.tier(), Target: target,
	}
	if o.Rootfs.SharedBase {
		a.Base = &s.bases
	}
	return a
}

// whyOnHost says why the root filesystem has to be attached on the host; ""
// if it need not.
func (c *Container) whyOnHost(o Options, spec *specs.Spec, target string) string {
	switch {
	case o.Rootfs.Attach == AttachHost:
		return "rootfs.attach says so"
	case o.Runtime.Binary != "":
		return "an OCI runtime takes a path"
	case c.restored:
		return "a restore starts from a path"
	case spec.Root.Path != target:
		return "root.path is not the bundle's"
	}
	return attachOnHost(spec)
}

func mountsOf(ms []*types.Mount) []rootfs.Mount {
	out := make([]rootfs.Mount, len(ms))
	for i, m := range ms {
		out[i] = rootfs.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	return out
}

// userNSPath is the user namespace that the container joins, "" if it has one
// of its own or none.
func userNSPath(s *specs.Spec) string {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.UserNamespace {
			return ns.Path
		}
	}
	return ""
}
