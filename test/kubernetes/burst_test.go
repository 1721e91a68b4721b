package kubernetes

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// burst is what it took to run pods that were created at once.
type burst struct {
	all, p50 time.Duration // until all, and until half of them, were running
	cpu      time.Duration // of containerd and what it started: shims and runtimes, no container
	mounts   rig.MountActivity
	rootfs   int // entries for root filesystems in the host's mount table when all were running
}

// cpu is what the cgroup of containerd and the shims has used.
func (s *scene) cpu() time.Duration {
	s.t.Helper()
	text, err := rig.ReadCgroup("cpuacct", daemonCgroup(s.node.Machine), [2]string{"cpuacct.usage", "cpu.stat"})
	s.must(err)
	if rig.Unified() {
		fields := strings.Fields(text) // usage_usec first
		usec, err := strconv.ParseInt(fields[1], 10, 64)
		s.must(err)
		return time.Duration(usec) * time.Microsecond
	}
	ns, err := strconv.ParseInt(text, 10, 64)
	s.must(err)
	return time.Duration(ns)
}

// burst creates pods at once, in user namespaces and of many layers, waits
// until all run, and deletes them.
func (s *scene) burst(handler string, pods int) burst {
	s.t.Helper()
	watch, err := rig.WatchMounts()
	s.must(err)
	cpu, begin := s.cpu(), time.Now()
	var names []string
	for range pods {
		names = append(names, s.create(class(handler), userNamespace, func(p *corev1.Pod) {
			p.Spec.Containers[0].Image = kubelet.LayeredImage
		}))
	}
	took := map[string]time.Duration{}
	if !rig.Eventually(bound, func() bool {
		var list corev1.PodList
		if err := s.cluster.API.Get(s.ctx, podsPath, &list); err != nil {
			return false
		}
		for i := range list.Items {
			name := list.Items[i].Name
			if _, known := took[name]; !known && slices.Contains(names, name) && running(&list.Items[i]) {
				took[name] = time.Since(begin)
			}
		}
		return len(took) == pods
	}) {
		s.t.Fatalf("%s: %d of %d pods run", handler, len(took), pods)
	}
	var times []time.Duration
	for _, d := range took {
		times = append(times, d)
	}
	slices.Sort(times)
	b := burst{all: times[len(times)-1], p50: times[len(times)/2], cpu: s.cpu() - cpu}
	b.rootfs = rig.CountMounts("overlay overlay on " + s.node.Daemon.State() + "/io.containerd.runtime.v2.task")
	for _, name := range names {
		s.must(s.cluster.API.Delete(s.ctx, podPath(name), 1))
	}
	for _, name := range names {
		s.must(s.awaitGone(s.ctx, name))
	}
	s.must(s.collect(s.ctx))
	b.mounts = watch.Stop()
	return b
}

// TestBurst runs -pods pods at once by the runc shim and by this one, twice
// each in turn, and prints what that took. All must run, and none may have its
// root filesystem in the host's mount table.
func TestBurst(t *testing.T) {
	s := act(t)
	// containerd leaves mounts of idmapped layers behind that it makes for the
	// runc shim, when it finds them busy.
	left := filepath.Join(s.node.Dir, "containerd", "tmp", "ovl-idmapped")
	s.leaks = []string{"file d " + left, "file - " + left, "mount "}
	const rounds = 2
	sums := map[string]burst{}
	for range rounds {
		for _, handler := range []string{"runc", "numa"} {
			b := s.burst(handler, *podsFlag)
			t.Logf("%-4s %d pods: all after %v, half after %v; CPU %v; host's mount table: %d wake-ups, peak +%d, %d of root filesystems",
				handler, *podsFlag, b.all.Round(time.Millisecond), b.p50.Round(time.Millisecond), b.cpu.Round(time.Millisecond),
				b.mounts.Wakeups, b.mounts.Peak, b.rootfs)
			if handler == "numa" {
				want(t, "root filesystems in the host's mount table", b.rootfs, 0)
			}
			sum := sums[handler]
			sums[handler] = burst{all: sum.all + b.all, p50: sum.p50 + b.p50, cpu: sum.cpu + b.cpu,
				mounts: rig.MountActivity{Wakeups: sum.mounts.Wakeups + b.mounts.Wakeups}}
		}
	}
	ours, runc := sums["numa"], sums["runc"]
	t.Logf("numa/runc: all running %.2f, half running %.2f, CPU %.2f, wake-ups %.2f",
		ours.all.Seconds()/runc.all.Seconds(), ours.p50.Seconds()/runc.p50.Seconds(), ours.cpu.Seconds()/runc.cpu.Seconds(),
		float64(ours.mounts.Wakeups)/float64(runc.mounts.Wakeups))
}
