package task

import (
	"context"
	"encoding/json"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
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
	if err := c.allowUpdate(); err != nil {
		return nil, err
	}
	if err := c.placed.Update(ctx, &res, c.applyLimits); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}
