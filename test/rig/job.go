package rig

import (
	"context"
	"fmt"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Mapped is how many ids IDMapping maps.
const Mapped = 65536

// IDMapping maps a container's ids upwards from host.
func IDMapping(host uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: host, Size: Mapped}}
}

// Job is a container to measure.
type Job struct {
	Runtime string
	Options any // the runtime's, nil for none
	Image   containerd.Image
	Args    []string
	Root    uint32 // host id of root in a user namespace; 0 for none
}

// Define makes the job's container and its snapshot, but no task.
func (d *Daemon) Define(ctx context.Context, id string, j Job) (containerd.Container, error) {
	spec := []oci.SpecOpts{oci.WithProcessArgs(j.Args...), oci.WithEnv([]string{"PATH=/bin"})}
	var labels []snapshots.Opt
	if j.Root != 0 {
		m := IDMapping(j.Root)
		spec = append(spec, oci.WithUserNamespace(m, m))
		labels = append(labels, containerd.WithUserNSRemapperLabels(m, m))
	}
	c, err := d.client.NewContainer(ctx, id,
		containerd.WithRuntime(j.Runtime, j.Options),
		containerd.WithSnapshotter(Snapshotter),
		containerd.WithImage(j.Image),
		containerd.WithNewSnapshot(id, j.Image, labels...),
		containerd.WithNewSpec(spec...))
	if err != nil {
		return nil, fmt.Errorf("define %s: %w", id, err)
	}
	return c, nil
}

// RunTask creates the container's task, starts it, waits for its end and
// deletes it, and says how long all of that took. The container stays.
func RunTask(ctx context.Context, c containerd.Container) (time.Duration, error) {
	begin := time.Now()
	task, err := StartTask(ctx, c)
	if err != nil {
		return 0, err
	}
	exited, err := task.Wait(ctx)
	if err != nil {
		return 0, fmt.Errorf("wait for %s: %w", c.ID(), err)
	}
	if status := <-exited; status.ExitCode() != 0 {
		return 0, fmt.Errorf("%s exited with %d", c.ID(), status.ExitCode())
	}
	if _, err := task.Delete(ctx); err != nil {
		return 0, fmt.Errorf("delete %s: %w", c.ID(), err)
	}
	return time.Since(begin), nil
}

// StartTask creates the container's task without streams and starts it.
func StartTask(ctx context.Context, c containerd.Container) (containerd.Task, error) {
	task, err := c.NewTask(ctx, cio.NullIO)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", c.ID(), err)
	}
	if err := task.Start(ctx); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.ID(), err)
	}
	return task, nil
}

// CPUTime is what all processes that ever were in the daemon's cgroup have
// used: the daemon, its shims and what they ran, but not containers, which
// have cgroups of their own.
func (d *Daemon) CPUTime() (time.Duration, error) {
	if Unified() {
		text, err := ReadCgroup("", d.cfg.Cgroup, [2]string{"", "cpu.stat"})
		if err != nil {
			return 0, err
		}
		var usec int64
		if _, err := fmt.Sscanf(text, "usage_usec %d", &usec); err != nil {
			return 0, fmt.Errorf("parse cpu.stat: %w", err)
		}
		return time.Duration(usec) * time.Microsecond, nil
	}
	text, err := ReadCgroup("cpuacct", d.cfg.Cgroup, [2]string{"cpuacct.usage", ""})
	if err != nil {
		return 0, err
	}
	var nsec int64
	if _, err := fmt.Sscanf(text, "%d", &nsec); err != nil {
		return 0, fmt.Errorf("parse cpuacct.usage: %w", err)
	}
	return time.Duration(nsec), nil
}
