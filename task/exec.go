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

// statusNeverStarted is the exit status of a process that never was.
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
	if err := c.allowExec(); err != nil {
		return nil, err
	}
	c.execs[r.ExecID] = p
	c.publish(topicExecAdded, &events.TaskExecAdded{ContainerID: c.id, ExecID: r.ExecID})
	return &emptypb.Empty{}, nil
}

// allowExec tells whether a process may be added to the container. The caller
// holds Container.mu.
func (c *Container) allowExec() error {
	switch {
	case c.deleting != nil:
		return fmt.Errorf("container %q is being deleted: %w", c.id, errdefs.ErrFailedPrecondition)
	case c.dying:
		return fmt.Errorf("cannot exec in a stopped container: init process is not running: %w", errdefs.ErrFailedPrecondition)
	}
	return c.init.status.allow("exec in", Created, Starting, Running)
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
	if err := io.run(); err != nil {
		// The process is there but cannot be heard.
		end(child, io)
		return err
	}
	c.mu.Lock()
	late := c.sealed
	if !late {
		p.child, p.stdio = child, io
	}
	inputEnded := p.inputEnded
	c.mu.Unlock()
	if late {
		// The engine took so long that init's exit was not held back for it.
		end(child, io)
		return fmt.Errorf("OCI runtime exec failed: init process is not running: %w", errdefs.ErrFailedPrecondition)
	}
	if inputEnded {
		io.closeStdin()
	}
	go c.awaitExec(p, child)
	return nil
}

// end takes back a process that nobody has been told of.
func end(child Child, io *stdio) {
	_ = child.Signal(sigKill)
	child.Wait()
	io.close()
}

// neverStarted ends an exec whose start failed, or a process that is deleted
// before it was there, an exec or an init to be restored: whoever waits for it is told. There has been no process, so
// there is no event. The caller holds Container.mu.
func (p *process) neverStarted() {
	p.status.to(Stopped)
	p.exit = Exit{Status: statusNeverStarted, At: time.Now()}
	close(p.exited)
}
