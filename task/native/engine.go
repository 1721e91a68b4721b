package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/log"
	// Without it libcontainer cannot set device rules.
	_ "github.com/opencontainers/cgroups/devices"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/sirupsen/logrus"

	"containerd-shim-numa-v1/task"
)

// Engine makes containers with libcontainer.
type Engine struct{}

var _ task.Engine = Engine{}

// Create makes a container whose init has set everything up and waits to
// execute its program. Errors have runc's words, which kubelet and docker
// look for.
func (Engine) Create(ctx context.Context, r task.CreateRequest) (_ task.Instance, err error) {
	config, err := configOf(r)
	if err != nil {
		return nil, fmt.Errorf("runc create failed: %w", err)
	}
	process, err := processOf(r.Spec.Process, r.Stdio)
	if err != nil {
		return nil, fmt.Errorf("runc create failed: %w", err)
	}
	process.Init = true
	process.ExtraFiles = r.Inherited

	container, err := libcontainer.Create(r.Root, r.ID, config)
	if err != nil {
		return nil, fmt.Errorf("runc create failed: %w", err)
	}
	start := func() error { return spawn(ctx, func() error { return container.Start(process) }) }
	if err := near(r.Near, start); err != nil {
		return nil, errors.Join(fmt.Errorf("runc create failed: %w", err), destroy(ctx, container, stateDir(r.Root, r.ID)))
	}
	init, err := newChild(process)
	if err != nil {
		// Without a pidfd nothing can be said about init, so it is ended.
		_ = process.Signal(os.Kill)
		_, _ = process.Wait()
		return nil, errors.Join(fmt.Errorf("runc create failed: %w", err), destroy(ctx, container, stateDir(r.Root, r.ID)))
	}
	return &instance{root: r.Root, id: r.ID, init: init, updating: make(chan struct{}, 1)}, nil
}

// destroy removes the cgroups, the intelRdt group and the state directory dir of
// a container of which nothing runs, and last runs its poststop hooks. If one of
// them fails, that is logged and the container is gone nevertheless
// (runtime-spec, runtime.md, Lifecycle). So it is if another was quicker.
func destroy(ctx context.Context, c *libcontainer.Container, dir string) error {
	err := c.Destroy()
	if err == nil {
		return nil
	}
	if _, statErr := os.Lstat(dir); !errors.Is(statErr, os.ErrNotExist) {
		return fmt.Errorf("remove the container: %w", err)
	}
	if config := c.Config(); config.HasHook(configs.Poststop) {
		log.G(ctx).WithError(err).WithField("id", c.ID()).Warn("not all poststop hooks have run")
	}
	return nil
}

// configOf translates a spec into libcontainer's configuration.
func configOf(r task.CreateRequest) (*configs.Config, error) {
	nameDevices(r.Spec)
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       r.ID,
		UseSystemdCgroup: r.SystemdCgroup,
		NoPivotRoot:      r.NoPivotRoot,
		NoNewKeyring:     r.NoNewKeyring,
		Spec:             r.Spec,
	})
	if err != nil {
		return nil, err
	}
	// Hooks get the bundle from this label; the converter wrote the working
	// directory there.
	config.Labels = slices.DeleteFunc(config.Labels, func(l string) bool { return strings.HasPrefix(l, bundleLabel) })
	config.Labels = append(config.Labels, bundleLabel+r.Bundle)
	return config, nil
}

const bundleLabel = "bundle="

// execFIFO is the file in a container's state directory on which its init
// waits to be started.
const execFIFO = "exec.fifo"

func (i *instance) execFIFO() string { return filepath.Join(stateDir(i.root, i.id), execFIFO) }

// stateDir is libcontainer's directory of a container.
func stateDir(root, id string) string { return filepath.Join(root, id) }

// logLevel is the level that libcontainer's init is to log with, in logrus's
// numbers: the shim's own.
func logLevel() string { return fmt.Sprintf("%d", logrus.GetLevel()) }
