package task

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"containerd-shim-numa-v1/cgroups"
	"containerd-shim-numa-v1/task/placement"
)

// Container is one container of the shim and the processes in it.
type Container struct {
	id     string
	bundle string
	// sharesPIDs: the container has no PID namespace of its own, so its
	// processes outlive init unless they are killed.
	sharesPIDs bool
	hostRootfs bool // the root filesystem is attached in the host's mount namespace
	owner      owner
	init       *process
	publish    func(topic string, event proto.Message)

	restored bool   // its Start restores it from a checkpoint
	criuWork string // where criu works then
	// instance is set once by Create before the container can be found by any
	// other request; so are the cgroup and the watch, but of a container to be
	// restored, whose Start sets them, under mu.
	instance Instance
	cgroup   *cgroups.Cgroup
	oom      *cgroups.OOMWatch
	placed   *placement.Placed // nil if it is left alone
	looks    uint64            // that the reapplier had begun before it was placed

	mu    sync.Mutex // guards what follows, and the processes
	execs map[string]*process
	// dying is set when init's exit has been seen: nothing starts any more.
	dying bool
	// sealed is set when init's exit waits for no further start of an exec.
	sealed bool
	// doomed is set when init is sent SIGKILL: the cgroup must not stay frozen.
	doomed bool
	// checkpointing is closed when a Checkpoint under way has ended; nil
	// otherwise.
	checkpointing chan struct{}
	// deleting is closed when a Delete under way has ended; nil otherwise.
	deleting chan struct{}
}

// owner is whom the container's pipes belong to on the host.
type owner struct{ uid, gid int }

// process finds init ("") or an exec. The caller holds mu.
func (c *Container) process(execID string) (*process, error) {
	if execID == "" {
		return c.init, nil
	}
	if p, ok := c.execs[execID]; ok {
		return p, nil
	}
	return nil, fmt.Errorf("process %q of container %q: %w", execID, c.id, errdefs.ErrNotFound)
}

// sharesPIDNamespace tells whether a container made from s has no PID
// namespace of its own.
func sharesPIDNamespace(s *specs.Spec) bool {
	if s.Linux == nil {
		return true
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace && ns.Path == "" {
			return false
		}
	}
	return true
}

// awaitStarts waits until no exec of c is being started: the caller has made
// sure under mu that no further one begins. It returns ctx's error if that
// ends first.
func (c *Container) awaitStarts(ctx context.Context) error {
	for {
		var starting chan struct{}
		c.mu.Lock()
		for _, p := range c.execs {
			if p.starting != nil {
				starting = p.starting
				break
			}
		}
		c.mu.Unlock()
		if starting == nil {
			return nil
		}
		select {
		case <-starting:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
