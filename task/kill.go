package task

import (
	"context"
	"errors"
	"fmt"
	"os"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"
)

const sigKill = unix.SIGKILL

// maxSignal is the highest number of a signal (signal(7), SIGRTMAX).
const maxSignal = 64

// Kill signals a process; with All, or with SIGKILL to the init of a
// container without a PID namespace of its own, every process of the
// container.
func (s *Service) Kill(ctx context.Context, r *taskv3.KillRequest) (*emptypb.Empty, error) {
	if r.Signal > maxSignal {
		return nil, invalid("signal %d", r.Signal)
	}
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	p, err := c.process(r.ExecID)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	sig := unix.Signal(r.Signal)
	fatal := p.isInit() && sig == sigKill && p.child != nil
	c.doomed = c.doomed || fatal
	status, child := p.status, p.child
	c.mu.Unlock()

	everyone := p.isInit() && (r.All || (c.sharesPIDs && sig == sigKill))
	switch {
	case child == nil && hasNeverRun(status):
		return nil, fmt.Errorf("process not created: %w", errdefs.ErrFailedPrecondition)
	case !status.exists() && !everyone:
		return nil, errFinished()
	case everyone:
		err = killError(c.instance.KillAll(sig))
	default:
		err = p.signal(child, sig)
	}
	if err != nil {
		return nil, err
	}
	if fatal && status.mayBeFrozen() {
		// A process in a frozen cgroup of version 1 dies only once it thaws.
		// A killed exec has to wait for that: the container stays paused.
		if err := c.instance.Resume(ctx); err != nil {
			return nil, fmt.Errorf("thaw the killed container: %w", err)
		}
	}
	return &emptypb.Empty{}, nil
}

// hasNeverRun tells of a process that there is none of, an exec or an init to
// be restored, whether there has been none yet.
func hasNeverRun(s Status) bool { return s == Created || s == Starting }

// killError is an error of a signal in the words that clients know.
func killError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrProcessDone), errors.Is(err, unix.ESRCH):
		return errFinished()
	}
	return fmt.Errorf("kill: %w", err)
}
