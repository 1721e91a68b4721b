package task

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/log"
)

// execExitBudget bounds how long the exit of a container's init waits for
// starts of execs that are under way, and then for the exits of all execs.
// When init of a PID namespace is reaped, the kernel has ended them; without a
// namespace a process in an uninterruptible sleep may stay, and a late exit
// event is better than none.
const execExitBudget = 10 * time.Second

// awaitInit is the one waiter of a container's init.
func (c *Container) awaitInit(child Child) {
	exit := child.Wait()
	c.refuseStarts()
	c.awaitCheckpoint()
	c.seal()
	if c.sharesPIDs {
		c.endLeftovers()
	}
	c.awaitExecs()

	if c.oom != nil && c.oom.Stop() {
		c.outOfMemory()
	}
	if c.cgroup != nil {
		c.cgroup.Final()
	}
	if err := writeExit(c.bundle, child.Pid(), exit); err != nil {
		c.log().WithError(err).Warn("the exit status is lost if the shim ends before containerd asks for it")
	}
	c.settleExit(c.init, exit)
}

// awaitExec is the one waiter of an exec.
func (c *Container) awaitExec(p *process, child Child) {
	exit := child.Wait()
	c.mu.Lock()
	starting := p.starting
	c.mu.Unlock()
	if starting != nil {
		<-starting
	}
	c.settleExit(p, exit)
}

// refuseStarts lets no start of init or an exec begin any more, once none of
// init is under way: its outcome is published before init's exit.
func (c *Container) refuseStarts() {
	for {
		c.mu.Lock()
		starting := c.init.starting
		c.dying = starting == nil
		c.mu.Unlock()
		if starting == nil {
			return
		}
		<-starting
	}
}

// seal waits for the execs that are being started. From then on none comes to
// be, so that those are all whose exits precede init's.
func (c *Container) seal() {
	ctx, cancel := context.WithTimeout(context.Background(), execExitBudget)
	defer cancel()
	if err := c.awaitStarts(ctx); err != nil {
		c.log().Warn("an exec is still being started while init has exited")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sealed = true
}

// endLeftovers ends the processes that init has left in a PID namespace that
// is not its own.
func (c *Container) endLeftovers() {
	if err := c.instance.KillAll(sigKill); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.log().WithError(err).Warn("cannot end the processes that init has left")
	}
	c.mu.Lock()
	status := c.init.status
	c.mu.Unlock()
	if !status.mayBeFrozen() {
		return
	}
	// As in Kill: with version 1 they die only once they thaw.
	ctx, cancel := context.WithTimeout(context.Background(), cleanupBudget)
	defer cancel()
	if err := c.instance.Resume(ctx); err != nil {
		c.log().WithError(err).Warn("cannot thaw the processes that init has left")
	}
}

// awaitExecs waits until every exec that has been started has exited.
func (c *Container) awaitExecs() {
	ctx, cancel := context.WithTimeout(context.Background(), execExitBudget)
	defer cancel()
	for _, p := range c.startedExecs() {
		select {
		case <-p.exited:
		case <-ctx.Done():
			c.log().WithField("exec", p.execID).Warn("still there while init has exited")
			return
		}
	}
}

func (c *Container) startedExecs() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ps []*process
	for _, p := range c.execs {
		if p.child != nil {
			ps = append(ps, p)
		}
	}
	return ps
}

// settleExit makes an exit known.
func (c *Container) settleExit(p *process, exit Exit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.status.to(Stopped)
	p.exit = exit
	c.exited(p)
	close(p.exited)
}

// outOfMemory publishes that the kernel has killed a process of the container
// for want of memory.
func (c *Container) outOfMemory() {
	c.publish(topicOOM, &events.TaskOOM{ContainerID: c.id})
}

func (c *Container) log() *log.Entry { return log.L.WithField("id", c.id) }
