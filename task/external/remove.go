package external

import (
	"context"
	"errors"
	"fmt"
	"os"

	runc "github.com/containerd/go-runc"

	"containerd-shim-numa-v1/task"
)

// Remover removes what a runtime has left of a container whose shim is gone.
type Remover struct {
	// Binary is the runtime's absolute path.
	Binary string
	// RemoveCgroup ends what is in the cgroup that the bundle's spec names
	// and removes it.
	RemoveCgroup func(ctx context.Context, id, bundle string) error
}

var _ task.Remover = Remover{}

// Remove ends and removes a container. One that the runtime keeps no state of
// is not touched: the cgroup that the bundle names may be another's.
//
// A runtime that died with its shim in the middle of a create may have made a
// cgroup and processes that it knows nothing of.
func (r Remover) Remove(ctx context.Context, root, id, bundle string) error {
	rt := runtime{binary: r.Binary, root: root, bundle: bundle, id: id}
	if !rt.hasState() {
		return nil
	}
	unknown := rt.do(func(c *runc.Runc, _ string) error {
		_, err := c.State(ctx, id)
		return err
	})
	if unknown == nil {
		return rt.delete(ctx)
	}
	if _, err := os.Stat(r.Binary); err != nil {
		return fmt.Errorf("the container's OCI runtime: %w", err)
	}
	if err := r.RemoveCgroup(ctx, id, bundle); err != nil {
		return err
	}
	err := rt.delete(ctx)
	if !rt.hasState() {
		return nil
	}
	// The runtime does not take for its own what it did not finish.
	if removeErr := os.RemoveAll(rt.stateDir()); removeErr != nil {
		return errors.Join(err, removeErr)
	}
	return nil
}
