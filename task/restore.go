package task

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// prepareRestore makes a container that Start will restore from images; there
// is no process of it until then.
func (c *Container) prepareRestore(ctx context.Context, engine Engine, r RestoreRequest) (err error) {
	restorer, ok := engine.(Restorer)
	if !ok {
		return fmt.Errorf("container %q: restore from a checkpoint: its engine cannot: %w", c.id, errdefs.ErrNotImplemented)
	}
	if err := checkImages(r.Images); err != nil {
		return fmt.Errorf("container %q: restore: %w", c.id, err)
	}
	if r.Work == "" {
		r.Work = criuWork(c.bundle)
	}
	c.criuWork = r.Work
	c.instance, err = restorer.Restore(ctx, r)
	if err != nil {
		return fmt.Errorf("OCI runtime restore failed: %w", err)
	}
	return nil
}

// restore has the engine restore the container's processes, which run on at
// once. If it fails there is none, and Start may be tried again.
func (s *Service) restore(ctx context.Context, c *Container) error {
	err := c.withCriu(restoreLog, c.criuWork, func() error { return c.instance.Start(ctx) })
	if err != nil {
		return fmt.Errorf("OCI runtime restore failed: %w", err)
	}
	child := c.instance.Init()
	err = c.init.stdio.run()
	if err == nil {
		err = writeInitPid(c.bundle, child.Pid())
	}
	if err != nil {
		// The processes are there but cannot be heard, or not found.
		c.discard(child)
		return fmt.Errorf("OCI runtime restore failed: %w", err)
	}
	c.watchCgroup(ctx, child)
	c.mu.Lock()
	c.init.child = child
	inputEnded := c.init.inputEnded
	c.mu.Unlock()
	if inputEnded {
		c.init.stdio.closeStdin()
	}
	go c.awaitInit(child)
	s.confirm(ctx, c, child)
	return nil
}
