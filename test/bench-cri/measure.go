package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// Bounds and rests of a measurement.
const (
	warmUpPods = 3
	firstRoot  = 100_000          // the host's id of root in the first pod
	shimsGone  = 60 * time.Second // for shims to end after their pods
	idleRest   = 3 * time.Second  // for shims' heaps to settle before their memory is read
)

// shimBinaries are the files that the handlers' shims are run from.
var shimBinaries = map[string]string{
	"numa": rig.ShimBinary(rig.OurRuntime),
	"runc": rig.ShimBinary(rig.RuncRuntime),
}

// round is what one burst of pods took.
type round struct {
	running  []time.Duration // of each pod: from its RunPodSandbox to its container's start, answered
	all      time.Duration   // to all running
	removed  time.Duration   // to stop and remove all
	startCPU time.Duration   // of containerd, shims and what they run, to all running
	totalCPU time.Duration   // the same to the last shim's end
	start    rig.MountActivity
	remove   rig.MountActivity
	rootfs   int // root filesystems in the host's mount table
	pss      int // of all shims, KiB
}

// measure runs the rounds, in turns.
func measure(ctx context.Context, n *kubelet.Node, o options) ([]*row, error) {
	for _, handler := range handlers {
		if _, err := burst(ctx, n, handler, warmUpPods); err != nil {
			return nil, err
		}
	}
	var rows rowSet
	for i := range o.rounds {
		order := slices.Clone(handlers)
		if i%2 == 1 { // neither shim always follows the other
			slices.Reverse(order)
		}
		for _, handler := range order {
			r, err := burst(ctx, n, handler, o.pods)
			if err != nil {
				return nil, fmt.Errorf("round %d of %s: %w", i, handler, err)
			}
			rows.addRound(handler, r)
		}
	}
	return rows.summarised(), nil
}

// each calls work for every pod, all at once.
func each(pods int, work func(i int) error) (err error) {
	errs := make(chan error, pods)
	for i := range pods {
		go func() { errs <- work(i) }()
	}
	for range pods {
		err = errors.Join(err, <-errs)
	}
	return err
}

// burst runs that many pods at once, looks at them, and removes them at once.
func burst(ctx context.Context, n *kubelet.Node, handler string, count int) (r round, err error) {
	pods := make([]*kubelet.Pod, count)
	r.running = make([]time.Duration, count)
	cpu, err := n.Daemon.CPUTime()
	if err != nil {
		return r, err
	}
	watch, err := rig.WatchMounts()
	if err != nil {
		return r, err
	}
	begin := time.Now()
	err = each(count, func(i int) error {
		begin := time.Now()
		p, err := n.RunPod(ctx, fmt.Sprintf("burst-%d", i),
			kubelet.WithHandler(handler), kubelet.UserNamespace(uint32(firstRoot+i*rig.Mapped)))
		if err != nil {
			return err
		}
		pods[i] = p
		_, err = p.Run(ctx, "main", []string{"/payload", "wait"}, kubelet.Image(kubelet.LayeredImage))
		r.running[i] = time.Since(begin)
		return err
	})
	r.all = time.Since(begin)
	r.start = watch.Stop()
	if err != nil {
		return r, err
	}
	after, err := n.Daemon.CPUTime()
	if err != nil {
		return r, err
	}
	r.startCPU = after - cpu
	r.rootfs = rig.CountMounts("overlay on " + n.Daemon.State() + "/io.containerd.runtime.v2.task/" + kubelet.Namespace)
	if r.pss, err = memory(handler); err != nil {
		return r, err
	}
	if err := r.removeAll(ctx, handler, pods); err != nil {
		return r, err
	}
	after, err = n.Daemon.CPUTime()
	r.totalCPU = after - cpu
	return r, err
}

// memory is the proportional set size of all shims that serve idle pods, KiB.
func memory(handler string) (kib int, err error) {
	time.Sleep(idleRest)
	for _, shim := range rig.Shims(shimBinaries[handler]) {
		pss, err := rig.PSS(shim.Pid)
		if err != nil {
			return 0, err
		}
		kib += pss
	}
	return kib, nil
}

// removeAll removes the pods at once and waits for the last shim's end.
func (r *round) removeAll(ctx context.Context, handler string, pods []*kubelet.Pod) error {
	watch, err := rig.WatchMounts()
	if err != nil {
		return err
	}
	begin := time.Now()
	err = each(len(pods), func(i int) error { return pods[i].Remove(ctx) })
	r.removed = time.Since(begin)
	r.remove = watch.Stop()
	if !rig.Eventually(shimsGone, func() bool { return len(rig.Shims(shimBinaries[handler])) == 0 }) {
		err = errors.Join(err, fmt.Errorf("shims of %s are still there %s after their pods", handler, shimsGone))
	}
	return err
}
