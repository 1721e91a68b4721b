package task

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/events"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"
)

// statusNeverStarted is the exit status of an exec that could not be started.
const statusNeverStarted = 255

// Exec adds a process to a container; Start runs it.
func (s *Service) Exec(_ context.Context, r *taskv3.ExecProcessRequest) (*emptypb.Empty, error) {
	if err := checkID(r.ExecID); err != nil {
		return nil, err
	}
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	var spec specs.Process
	if err := json.Unmarshal(r.GetSpec().GetValue(), &spec); err != nil {
		return nil, invalid("exec %q: process spec: %v", r.ExecID, err)
	}
	if err := checkProcess(&spec); err != nil {
		return nil, invalid("exec %q: %v", r.ExecID, err)
	}
	spec.Terminal = r.Terminal
	p := newProcess(r.ExecID, URIs{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal})
	p.spec, p.status = &spec, Created

	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.execs[r.ExecID]; ok {
		return nil, fmt.Errorf("id %s: %w", r.ExecID, errdefs.ErrAlreadyExists)
	}
	if c.dying {
		return nil, fmt.Errorf("cannot exec in a stopped state: %w", errdefs.ErrFailedPrecondition)
	}
	if err := c.init.status.allow("exec in", Created, Starting, Running); err != nil {
		return nil, err
	}
	c.execs[r.ExecID] = p
	c.publish(topicExecAdded, &events.TaskExecAdded{ContainerID: c.id, ExecID: r.ExecID})
	return &emptypb.Empty{}, nil
}

// startExec runs p in c. What it opens for a process that then does not come
// to be is closed again.
func (s *Service) startExec(ctx context.Context, c *Container, p *process) error {
	io, err := openStdio(ctx, s.Namespace, c.id, p.uris, c.owner)
	if err != nil {
		return err
	}
	child, err := c.instance.Exec(ctx, p.spec, io.files)
	if err != nil {
		io.close()
		return fmt.Errorf("OCI runtime exec failed: %w", err)
	}
	if err := io.run(ctx); err != nil {
		// The process is there but cannot be heard: it is ended, and nobody
		// ever knew it.
		_ = child.Signal(sigKill)
		child.Wait()
		io.close()
		return err
	}
	c.mu.Lock()
	p.child, p.stdio = child, io
	c.mu.Unlock()
	go c.awaitExec(p, child)
	return nil
}

// neverStarted ends an exec whose start failed. There has been no process, so
// there is no event. The caller holds Container.mu.
func (p *process) neverStarted() {
	p.status.to(Stopped)
	p.exit = Exit{Status: statusNeverStarted, At: time.Now()}
	close(p.exited)
}
