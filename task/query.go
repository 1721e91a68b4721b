package task

import (
	"context"
	"fmt"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// State tells what a process is doing. It answers from memory.
func (s *Service) State(_ context.Context, r *taskv3.StateRequest) (*taskv3.StateResponse, error) {
	c, p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.response(c.id, c.bundle, c.init.status), nil
}

// Wait blocks until a process has exited.
func (s *Service) Wait(ctx context.Context, r *taskv3.WaitRequest) (*taskv3.WaitResponse, error) {
	c, p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return &taskv3.WaitResponse{ExitStatus: p.exit.Status, ExitedAt: timestamppb.New(p.exit.At)}, nil
}

// Pids lists the processes in a container; those that are execs carry their
// exec id.
//
// containerd asks it of every shim it finds when it starts and takes an empty
// list for a leaked shim. So a container that has exited is answered with an
// error other than NotFound: it stays, and its exit status with it.
func (s *Service) Pids(_ context.Context, r *taskv3.PidsRequest) (*taskv3.PidsResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	status, child := c.init.status, c.init.child
	c.mu.Unlock()
	if !status.exists() || child == nil {
		return nil, fmt.Errorf("container %q is %s, without processes: %w", c.id, status, errdefs.ErrFailedPrecondition)
	}
	return c.processes()
}

// pidsV2 is Pids for a containerd that speaks the second version of the API.
// 1.7 takes every error for a leaked shim as well, so a container that has
// exited, or is yet to be restored, is answered with the pid that State tells.
func (s *Service) pidsV2(_ context.Context, r *taskv3.PidsRequest) (*taskv3.PidsResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	exists, pid := c.init.status.exists() && c.init.child != nil, c.init.pid()
	c.mu.Unlock()
	if !exists {
		return &taskv3.PidsResponse{Processes: []*task.ProcessInfo{{Pid: pid}}}, nil
	}
	return c.processes()
}

// processes lists the processes of a container that exists.
func (c *Container) processes() (*taskv3.PidsResponse, error) {
	pids, err := c.instance.Pids()
	if err != nil {
		return nil, fmt.Errorf("processes of container %q: %w", c.id, err)
	}
	execs := c.execPids()
	resp := &taskv3.PidsResponse{}
	for _, pid := range pids {
		info := &task.ProcessInfo{Pid: uint32(pid)}
		if id, ok := execs[info.Pid]; ok {
			if info.Info, err = details(id); err != nil {
				return nil, err
			}
		}
		resp.Processes = append(resp.Processes, info)
	}
	return resp, nil
}

func (c *Container) execPids() map[uint32]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := map[uint32]string{}
	for id, p := range c.execs {
		if p.child != nil && !p.hasExited() {
			ids[p.pid()] = id
		}
	}
	return ids
}

func details(execID string) (*anypb.Any, error) {
	a, err := typeurl.MarshalAnyToProto(&runcoptions.ProcessDetails{ExecID: execID})
	if err != nil {
		return nil, fmt.Errorf("details of exec %q: %w", execID, err)
	}
	return a, nil
}

// Stats tells what the container's cgroup has used: io.containerd.cgroups.v1
// or v2 Metrics. After the container's exit they are its last.
func (s *Service) Stats(_ context.Context, r *taskv3.StatsRequest) (*taskv3.StatsResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	cgroup := c.cgroup
	c.mu.Unlock()
	if cgroup == nil {
		return nil, fmt.Errorf("cgroup of container %q: %w", c.id, errdefs.ErrNotFound)
	}
	stats, err := cgroup.Stats()
	if err != nil {
		return nil, fmt.Errorf("statistics of container %q: %w", c.id, err)
	}
	a, err := typeurl.MarshalAnyToProto(stats)
	if err != nil {
		return nil, fmt.Errorf("statistics of container %q: %w", c.id, err)
	}
	return &taskv3.StatsResponse{Stats: a}, nil
}

// ResizePty sets the size of a process's terminal; without one it does
// nothing, as clients expect.
func (s *Service) ResizePty(_ context.Context, r *taskv3.ResizePtyRequest) (*emptypb.Empty, error) {
	c, p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	io, exited := p.stdio, p.hasExited()
	c.mu.Unlock()
	switch {
	case exited:
		return nil, fmt.Errorf("cannot resize a stopped container: %w", errdefs.ErrFailedPrecondition)
	case io == nil:
		return &emptypb.Empty{}, nil
	}
	if err := io.resize(r.Width, r.Height); err != nil {
		return nil, fmt.Errorf("resize the terminal: %w", err)
	}
	return &emptypb.Empty{}, nil
}

// CloseIO ends a process's standard input: what containerd's clients wrote
// before is still read. It may come before the process has been started.
func (s *Service) CloseIO(_ context.Context, r *taskv3.CloseIORequest) (*emptypb.Empty, error) {
	c, p, err := s.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if !r.Stdin {
		return &emptypb.Empty{}, nil
	}
	c.mu.Lock()
	io := p.stdio
	p.inputEnded = true
	c.mu.Unlock()
	if io != nil {
		io.closeStdin()
	}
	return &emptypb.Empty{}, nil
}

// process finds a container and a process of it.
func (s *Service) process(id, execID string) (*Container, *process, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.process(execID)
	return c, p, err
}
