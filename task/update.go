package task

import (
	"context"
	"encoding/json"
	"fmt"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Update changes the limits of a container's cgroup. The request carries
// linux.resources of the runtime-spec as JSON.
func (s *Service) Update(ctx context.Context, r *taskv3.UpdateTaskRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	var res specs.LinuxResources
	if err := json.Unmarshal(r.GetResources().GetValue(), &res); err != nil {
		return nil, invalid("update of container %q: resources: %v", c.id, err)
	}
	c.mu.Lock()
	err = c.init.status.allow("update", Created, Starting, Running, Pausing, Paused, Resuming)
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := c.instance.Update(ctx, &res); err != nil {
		return nil, fmt.Errorf("OCI runtime update failed: %w", err)
	}
	return &emptypb.Empty{}, nil
}

// Checkpoint is not offered.
func (s *Service) Checkpoint(context.Context, *taskv3.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return nil, fmt.Errorf("checkpoint: %w", errdefs.ErrNotImplemented)
}
