package task

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/api/events"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Pause freezes all processes of a container.
//
// It waits for execs that are just being started: frozen half-way they would
// keep their starter waiting until the container is resumed.
func (s *Service) Pause(ctx context.Context, r *taskv3.PauseRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	if err := c.enter("pause", Pausing, Running); err != nil {
		return nil, err
	}
	if err = c.awaitStarts(ctx); err == nil {
		err = c.freeze(ctx)
	}
	return c.leave("pause", Pausing, Running, Paused, topicPaused, &events.TaskPaused{ContainerID: c.id}, err)
}

// freeze freezes the container, unless its init was killed meanwhile, or has
// exited and what it left is being killed: in a frozen cgroup of version 1
// nothing dies.
func (c *Container) freeze(ctx context.Context) error {
	if err := c.instance.Pause(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	ends := c.doomed || c.dying
	c.mu.Unlock()
	if !ends {
		return nil
	}
	if err := c.instance.Resume(ctx); err != nil {
		return fmt.Errorf("thaw the killed container: %w", err)
	}
	return errFinished()
}

// Resume thaws a paused container.
func (s *Service) Resume(ctx context.Context, r *taskv3.ResumeRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	if err := c.enter("resume", Resuming, Paused); err != nil {
		return nil, err
	}
	err = c.instance.Resume(ctx)
	return c.leave("resume", Resuming, Paused, Running, topicResumed, &events.TaskResumed{ContainerID: c.id}, err)
}

// enter moves the container from one of the states in to next, which stands
// for a request under way.
func (c *Container) enter(verb string, next Status, in ...Status) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.init.status.allow(verb, in...); err != nil {
		return err
	}
	c.init.status.to(next)
	return nil
}

// leave ends the request that now stands for: to succeeded and an event, or
// back to failed. The exit of init overtakes both.
func (c *Container) leave(verb string, now, failed, succeeded Status, topic string, event proto.Message, err error) (*emptypb.Empty, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	overtaken := c.init.status != now
	switch {
	case err != nil:
		if !overtaken {
			c.init.status.to(failed)
		}
		return nil, fmt.Errorf("OCI runtime %s failed: %w", verb, err)
	case overtaken:
		return nil, errFinished()
	}
	c.init.status.to(succeeded)
	c.publish(topic, event)
	return &emptypb.Empty{}, nil
}
