package task

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	"containerd-shim-numa-v1/rootfs"
)

// The parts of a Delete have budgets of their own, so that output nobody
// reads does not eat up the time for removing the container.
const (
	drainBudget   = 10 * time.Second
	cleanupBudget = 10 * time.Second
	// killBudget bounds the wait for an init that was never started.
	killBudget = 5 * time.Second
)

// Delete removes a container whose init has exited or was never started, or
// an exec that has exited or was never started.
//
// A second Delete of a container while the first is under way waits for it
// and has the same answer; so has one that comes after it, for a while.
func (s *Service) Delete(ctx context.Context, r *taskv3.DeleteRequest) (*taskv3.DeleteResponse, error) {
	c, err := s.container(r.ID)
	if err != nil {
		if how, ok := s.buried(r.ID); ok && r.ExecID == "" {
			return how, nil
		}
		return nil, err
	}
	if r.ExecID != "" {
		return c.deleteExec(r.ExecID)
	}
	first, done, err := c.beginDelete()
	if err != nil {
		return nil, err
	}
	if !first {
		select {
		case <-done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if how, ok := s.buried(r.ID); ok {
			return how, nil
		}
		return nil, fmt.Errorf("container %q: the delete that was under way failed; try again", r.ID)
	}
	// A client that stops waiting does not leave half a container behind.
	how, err := s.remove(context.WithoutCancel(ctx), c)
	c.endDelete(how, err, func() { s.retire(c, how) })
	return how, err
}

func (s *Service) buried(id string) (*taskv3.DeleteResponse, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended.find(id)
}

// beginDelete takes the right to delete c, or the channel that tells when the
// request that has it is done.
func (c *Container) beginDelete() (first bool, done chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deleting != nil {
		return false, c.deleting, nil
	}
	if err := c.init.status.allow("delete", Created, Stopped); err != nil {
		return false, nil, err
	}
	c.deleting = make(chan struct{})
	return true, c.deleting, nil
}

// endDelete publishes the deletion if there was no error; otherwise Delete
// may be tried again. Whoever waited finds the tombstone that bury sets.
//
// The id is free only when the deletion has been queued: the next container of
// that id is not told of before, and a shim without containers that ends takes
// the event along.
func (c *Container) endDelete(how *taskv3.DeleteResponse, err error, bury func()) {
	c.mu.Lock()
	switch {
	case err == nil:
		c.init.status.to(Deleted)
		for _, p := range c.execs {
			if p.status == Created {
				p.neverStarted()
			}
		}
		c.gone(how)
	case c.init.status == Deleting:
		c.init.status.to(Stopped)
	}
	c.mu.Unlock()
	if err == nil {
		bury()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.deleting)
	if err != nil {
		c.deleting = nil // it stays for one that has found c and comes late
	}
}

// remove takes everything away that the container consists of.
func (s *Service) remove(ctx context.Context, c *Container) (*taskv3.DeleteResponse, error) {
	if err := c.endUnstarted(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.init.status.to(Deleting)
	io, exit, pid := c.init.stdio, c.init.exit, c.init.pid()
	c.mu.Unlock()

	if pid != 0 {
		c.drain(ctx, io)
	}
	clean, cancel := context.WithTimeout(ctx, cleanupBudget)
	defer cancel()
	if err := c.instance.Delete(clean); err != nil {
		return nil, fmt.Errorf("OCI runtime delete failed: %w", err)
	}
	if c.hostRootfs {
		if err := rootfs.Detach(filepath.Join(c.bundle, rootfsDir)); err != nil {
			return nil, fmt.Errorf("failed rootfs umount: %w", err)
		}
	}
	c.release()
	io.close()
	for _, p := range c.startedExecs() {
		p.stdio.close()
	}
	return &taskv3.DeleteResponse{Pid: pid, ExitStatus: exit.Status, ExitedAt: timestamppb.New(exit.At)}, nil
}

// drain awaits the output of init and of the execs that no Delete has asked
// for yet. All at once: output that nobody reads uses up no other's time.
func (c *Container) drain(ctx context.Context, init *stdio) {
	ctx, cancel := context.WithTimeout(ctx, drainBudget)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { init.drain(ctx) })
	for _, p := range c.startedExecs() {
		all.Go(func() { p.stdio.drain(ctx) })
	}
	all.Wait()
}

// endUnstarted kills an init that was created but never started, as runc
// does, and waits for its exit. Of one that was never restored there is none.
func (c *Container) endUnstarted(ctx context.Context) error {
	c.mu.Lock()
	status, child := c.init.status, c.init.child
	if status == Created && child == nil {
		c.init.neverStarted()
	}
	c.mu.Unlock()
	if status != Created || child == nil {
		return nil
	}
	if err := killError(child.Signal(sigKill)); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, killBudget)
	defer cancel()
	select {
	case <-c.init.exited:
		return nil
	case <-wait.Done():
		return fmt.Errorf("container %q: init, killed before it was started, has not exited in %s", c.id, killBudget)
	}
}

// deleteExec forgets an exec.
func (c *Container) deleteExec(execID string) (*taskv3.DeleteResponse, error) {
	c.mu.Lock()
	p, err := c.process(execID)
	if err == nil {
		err = p.status.allow("delete", Created, Stopped)
	}
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	before := p.status
	if before == Created {
		p.neverStarted()
	}
	p.status.to(Deleting)
	io := p.stdio
	c.mu.Unlock()

	if io != nil {
		drain, cancel := context.WithTimeout(context.Background(), drainBudget)
		io.drain(drain)
		cancel()
		io.close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.status.to(Deleted)
	delete(c.execs, execID)
	exit := p.exit
	if before == Created {
		exit = Exit{} // as runc's shim tells it
	}
	return &taskv3.DeleteResponse{Pid: p.pid(), ExitStatus: exit.Status, ExitedAt: timestamppb.New(exit.At)}, nil
}
