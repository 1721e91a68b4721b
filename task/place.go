package task

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task/placement"
)

// placeBudget bounds what is done for a container's placement after its
// creation and beside its deletion.
const placeBudget = 10 * time.Second

// place finds a place for a container on the machine and writes it into spec.
func (s *Service) place(ctx context.Context, c *Container, o Options, spec *specs.Spec, undone *undo) (err error) {
	if s.Node.Placement.CoreScheduling {
		s.shareCores()
	}
	c.looks = s.reapplier.looks.Load()
	c.placed, err = s.placer.Place(ctx, placement.Container{
		ID: c.id, Bundle: c.bundle, Spec: spec, Systemd: o.systemdCgroup(spec), Settings: o.Placement,
	})
	if err != nil {
		return fmt.Errorf("container %q: %w", c.id, err)
	}
	undone.push(c.release)
	return nil
}

// confirm looks once more at the placement of a container that exists, and is
// among those that a wake reaches. A wake since the one that was the last when
// it was placed may have come too early for it.
func (s *Service) confirm(ctx context.Context, c *Container, init Child) {
	if c.placed == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), placeBudget)
	defer cancel()
	c.placed.Confirm(ctx, init.Pid(), c.cgroup, c.applyLimits)
	if s.reapplier.looks.Load() != c.looks {
		s.reapply(ctx, c)
	}
}

// release takes a container that is gone out of the ledger.
func (c *Container) release() {
	ctx, cancel := context.WithTimeout(context.Background(), placeBudget)
	defer cancel()
	c.placed.Release(ctx)
}

// applyLimits changes the limits of the cgroup of a container that is there.
func (c *Container) applyLimits(ctx context.Context, r *specs.LinuxResources) error {
	if err := c.allowUpdate(); err != nil {
		return err
	}
	if err := c.instance.Update(ctx, r); err != nil {
		return fmt.Errorf("OCI runtime update failed: %w", err)
	}
	return nil
}

// allowUpdate refuses an update of a container that has no cgroup any more.
func (c *Container) allowUpdate() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.init.status.allow("update", Created, Starting, Running, Pausing, Paused, Resuming, Checkpointing, CheckpointingPaused)
}

// shareCores gives the shim a core-scheduling cookie, once, which everything
// that it forks inherits: core-scheduling.rst of the kernel, since 5.14.
func (s *Service) shareCores() {
	s.cookie.Do(func() {
		err := unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_CREATE, 0, unix.PR_SCHED_CORE_SCOPE_THREAD_GROUP, 0)
		if err != nil {
			log.L.WithError(err).Warn("no core scheduling: the kernel does not do it, or there is nothing to share a core with")
		}
	})
}
