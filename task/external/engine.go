package external

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/cgroups"
	"containerd-shim-numa-v1/task"
)

// Engine makes containers with an OCI runtime's command.
type Engine struct {
	binary  string
	adopter *adopter
	// removeEmpty removes the cgroup that a bundle's spec names once nothing
	// is in it, until its context ends.
	removeEmpty func(ctx context.Context, id, bundle string) error
}

var _ task.Engine = (*Engine)(nil)

// New returns an engine on the runtime whose absolute path is binary, and
// makes the calling process a subreaper. A process has one such engine at
// most, and its main thread starts no process (doc.go). removeEmpty removes
// the cgroup that a bundle's spec names if, before its context ends, nothing
// is in it.
func New(binary string, removeEmpty func(ctx context.Context, id, bundle string) error) (*Engine, error) {
	if !filepath.IsAbs(binary) {
		return nil, fmt.Errorf("OCI runtime %q: not an absolute path", binary)
	}
	a, err := newAdopter()
	if err != nil {
		return nil, fmt.Errorf("OCI runtime %s: %w", binary, err)
	}
	return &Engine{binary: binary, adopter: a, removeEmpty: removeEmpty}, nil
}

// Close ends the adoption of processes. All containers are gone by then.
func (e *Engine) Close() error { return e.adopter.close() }

// pidFile is where create has the runtime tell init's pid: in the bundle,
// where containerd's own shim has it too.
const pidFile = "init.pid"

// Create has the runtime make a container. Errors are in the runtime's words.
func (e *Engine) Create(ctx context.Context, r task.CreateRequest) (_ task.Instance, err error) {
	rt, err := e.runtimeFor(r)
	if err != nil {
		return nil, err
	}
	// A client that stops waiting leaves no half container behind.
	ctx = context.WithoutCancel(ctx)
	init, err := e.create(ctx, rt, r)
	if err != nil {
		return nil, errors.Join(err, e.abandon(ctx, rt))
	}
	cg, err := cgroups.Load(init.pid)
	if err != nil {
		_ = init.Signal(unix.SIGKILL)
		init.Wait()
		return nil, errors.Join(err, e.abandon(ctx, rt))
	}
	return &instance{runtime: rt, adopter: e.adopter, init: init, cgroup: cg}, nil
}

// runtimeFor is how commands are run for a container that is to be made, with
// its spec where the runtime looks for it.
func (e *Engine) runtimeFor(r task.CreateRequest) (runtime, error) {
	rt := runtime{binary: e.binary, root: r.Root, bundle: r.Bundle, id: r.ID, systemd: r.SystemdCgroup}
	if len(r.Inherited) > 0 {
		return rt, errors.New("a root filesystem that is not attached cannot be handed to an OCI runtime")
	}
	if rt.hasState() {
		// The runtime would say the same, but what it had made would not be
		// told from what the other has.
		return rt, fmt.Errorf("container with id %q exists in %s: %w", r.ID, r.Root, errdefs.ErrAlreadyExists)
	}
	return rt, writeSpec(r.Bundle, r.Spec)
}

// emptyBudget is how long what a failed create had in the cgroup may take to
// be gone.
const emptyBudget = time.Second

// abandon removes what a failed create has left. Most runtimes leave nothing;
// crun leaves the cgroup where it could not set its limits.
func (e *Engine) abandon(ctx context.Context, rt runtime) error {
	err := rt.delete(ctx)
	ctx, cancel := context.WithTimeout(ctx, emptyBudget)
	defer cancel()
	if err := errors.Join(err, e.removeEmpty(ctx, rt.id, rt.bundle)); err != nil {
		return fmt.Errorf("remove what it left: %w", err)
	}
	return nil
}

// create runs the runtime's create. Its log stays in the bundle.
func (e *Engine) create(ctx context.Context, rt runtime, r task.CreateRequest) (*child, error) {
	c := rt.command(filepath.Join(rt.bundle, logFile))
	var init *child
	err := rt.do(func(_ *runc.Runc, scratch string) error {
		pids := filepath.Join(rt.bundle, pidFile)
		var err error
		init, err = e.adopter.bear(r.Stdio, pids, scratch, func(io runc.IO, console runc.ConsoleSocket) error {
			return c.Create(ctx, rt.id, rt.bundle, &runc.CreateOpts{
				IO: io, PidFile: pids, ConsoleSocket: console, NoPivot: r.NoPivotRoot, NoNewKeyring: r.NoNewKeyring,
			})
		})
		return inWords(err, c.Log)
	})
	return init, err
}
