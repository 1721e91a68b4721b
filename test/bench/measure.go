package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	containerd "github.com/containerd/containerd/v2/client"

	"containerd-shim-numa-v1/test/rig"
)

// mappedRoot is the host's id of root in user namespaces.
const mappedRoot = 100000

// Bounds and rests of a measurement.
const (
	shimsGone = 30 * time.Second // for shims to end after their last container
	idleRest  = 3 * time.Second  // for a shim's heap to settle before its memory is read
)

// Row is one kind of measurement of one runtime: all samples, per container.
type Row struct {
	Kind    string    `json:"kind"`
	Runtime string    `json:"runtime"`
	Unit    string    `json:"unit"`
	Median  float64   `json:"median"`
	P95     float64   `json:"p95"`
	Samples []float64 `json:"samples"`
}

func (r *Row) summarise() {
	sorted := slices.Sorted(slices.Values(r.Samples))
	n := len(sorted)
	r.Median = sorted[n/2]
	r.P95 = sorted[min(int(math.Ceil(0.95*float64(n))), n)-1]
}

// rowSet collects samples in the order kinds first appear.
type rowSet struct{ rows []*Row }

func (s *rowSet) add(kind, runtime, unit string, sample float64) {
	for _, r := range s.rows {
		if r.Kind == kind && r.Runtime == runtime {
			r.Samples = append(r.Samples, sample)
			return
		}
	}
	s.rows = append(s.rows, &Row{Kind: kind, Runtime: runtime, Unit: unit, Samples: []float64{sample}})
}

// shape is a kind of container that is measured.
type shape struct {
	name  string
	image containerd.Image
	root  uint32
}

func (b *bench) measure(ctx context.Context) ([]*Row, error) {
	shapes := []shape{
		{"1 layer", b.plain, 0},
		{fmt.Sprintf("%d layers", b.layers), b.deep, 0},
		{fmt.Sprintf("%d layers, userns", b.layers), b.deep, mappedRoot},
	}
	var set rowSet
	for _, s := range shapes {
		if err := b.inARow(ctx, s, &set); err != nil {
			return nil, err
		}
	}
	for _, s := range shapes {
		if err := b.atOnce(ctx, s, &set); err != nil {
			return nil, err
		}
	}
	if err := b.idleMemory(ctx, &set); err != nil {
		return nil, err
	}
	for _, r := range set.rows {
		r.summarise()
	}
	return set.rows, nil
}

// define makes a container of the shape; its snapshot is not measured.
func (b *bench) define(ctx context.Context, runtime string, s shape, args ...string) (containerd.Container, error) {
	b.made++
	name, options := withOptions(runtime)
	return b.daemon.Define(ctx, fmt.Sprintf("bench-%d", b.made), rig.Job{Runtime: name, Options: options, Image: s.image, Args: args, Root: s.root})
}

// life runs one container's task from Create to Delete, and returns its wall
// time and the CPU time of daemon and shims until the shim is gone.
func (b *bench) life(ctx context.Context, runtime string, cs []containerd.Container) (wall, cpu time.Duration, err error) {
	before, err := b.daemon.CPUTime()
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	errs := make(chan error, len(cs))
	for _, c := range cs {
		go func() {
			_, err := rig.RunTask(ctx, c)
			errs <- err
		}()
	}
	for range cs {
		err = errors.Join(err, <-errs)
	}
	wall = time.Since(begin)
	if err != nil {
		return 0, 0, err
	}
	if !rig.Eventually(shimsGone, func() bool { return len(rig.Shims(binary(runtime))) == 0 }) {
		return 0, 0, fmt.Errorf("shims of %s are still there %s after their containers", runtime, shimsGone)
	}
	after, err := b.daemon.CPUTime()
	if err != nil {
		return 0, 0, err
	}
	for _, c := range cs {
		err = errors.Join(err, c.Delete(ctx, containerd.WithSnapshotCleanup))
	}
	return wall, after - before, err
}

// inARow alternates single containers of all runtimes. A first one of each
// warms caches up.
func (b *bench) inARow(ctx context.Context, s shape, set *rowSet) error {
	for i := range b.options.serial + 1 {
		for _, runtime := range b.runtimes {
			if err := b.sample(ctx, "serial, "+s.name, runtime, s, 1, i > 0, set); err != nil {
				return err
			}
		}
	}
	return nil
}

// atOnce alternates rounds of many containers together.
func (b *bench) atOnce(ctx context.Context, s shape, set *rowSet) error {
	kind := fmt.Sprintf("%d at once, %s", b.parallel, s.name)
	for i := range b.rounds + 1 {
		for _, runtime := range b.runtimes {
			if err := b.sample(ctx, kind, runtime, s, b.parallel, i > 0, set); err != nil {
				return err
			}
		}
	}
	return nil
}

// sample measures n containers together: wall time of all, CPU time of each.
func (b *bench) sample(ctx context.Context, kind, runtime string, s shape, n int, keep bool, set *rowSet) error {
	cs := make([]containerd.Container, n)
	for i := range cs {
		var err error
		if cs[i], err = b.define(ctx, runtime, s, "/bin/true"); err != nil {
			return err
		}
	}
	wall, cpu, err := b.life(ctx, runtime, cs)
	if err != nil || !keep {
		return err
	}
	set.add(kind+": wall", runtime, "ms", milliseconds(wall))
	set.add(kind+": CPU each", runtime, "ms", milliseconds(cpu)/float64(n))
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// idleMemory reads the memory of shims whose container sleeps.
func (b *bench) idleMemory(ctx context.Context, set *rowSet) error {
	for _, runtime := range b.runtimes {
		if err := b.idleMemoryOf(ctx, runtime, set); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) idleMemoryOf(ctx context.Context, runtime string, set *rowSet) (err error) {
	for range b.idle {
		c, err := b.define(ctx, runtime, shape{"", b.plain, 0}, "/payload", "wait")
		if err != nil {
			return err
		}
		task, err := rig.StartTask(ctx, c)
		if err != nil {
			return err
		}
		defer func() {
			_, deleteErr := task.Delete(ctx, containerd.WithProcessKill)
			err = errors.Join(err, deleteErr, c.Delete(ctx, containerd.WithSnapshotCleanup))
		}()
	}
	time.Sleep(idleRest)
	for _, shim := range rig.Shims(binary(runtime)) {
		kib, err := rig.PSS(shim.Pid)
		if err != nil {
			return err
		}
		set.add(fmt.Sprintf("idle shim, 1 of %d: PSS", b.idle), runtime, "KiB", float64(kib))
	}
	return nil
}
