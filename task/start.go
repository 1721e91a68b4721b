package task

import (
	"context"
	"fmt"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
)

// Start lets init run its program, or restores it with all of its container's
// processes, or starts an exec that was added.
func (s *Service) Start(ctx context.Context, r *taskv3.StartRequest) (*taskv3.StartResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	p, err := c.beginStart(r.ExecID)
	if err != nil {
		return nil, err
	}
	switch {
	case !p.isInit():
		err = s.startExec(ctx, c, p)
	case c.restored:
		err = s.restore(ctx, c)
	default:
		err = c.start(ctx)
	}
	return c.endStart(p, err)
}

func (c *Container) start(ctx context.Context) error {
	if err := c.instance.Start(ctx); err != nil {
		return fmt.Errorf("OCI runtime start failed: %w", err)
	}
	return nil
}

// beginStart marks a process as being started, after which no other request
// starts it and its exit waits for endStart.
func (c *Container) beginStart(execID string) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.process(execID)
	if err != nil {
		return nil, err
	}
	if err := p.status.allow("start", Created); err != nil {
		return nil, err
	}
	if c.deleting != nil {
		return nil, fmt.Errorf("container %q is being deleted: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	switch {
	case !p.isInit():
		if err := c.allowExec(); err != nil {
			return nil, err
		}
	case c.dying:
		return nil, fmt.Errorf("OCI runtime start failed: container process is already dead: %w", errdefs.ErrFailedPrecondition)
	}
	p.status.to(Starting)
	p.starting = make(chan struct{})
	return p, nil
}

// endStart records how a start ended and publishes it; only then may the exit
// of the process, which may long have happened, be told.
func (c *Container) endStart(p *process, err error) (*taskv3.StartResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		close(p.starting)
		p.starting = nil
	}()
	switch {
	case err == nil:
		p.status.to(Running)
		c.started(p)
		return &taskv3.StartResponse{Pid: p.pid()}, nil
	case p.isInit():
		// init still waits to be started or restored, or its waiter is about
		// to tell that it is gone.
		p.status.to(Created)
	default:
		p.neverStarted()
	}
	return nil, err
}
