package kubernetes

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"containerd-shim-numa-v1/test/rig"
)

// few is how many pods run while something is restarted below them.
const few = 5

// runFew runs some pods, every other one in a user namespace.
func (s *scene) runFew() []*corev1.Pod {
	s.t.Helper()
	for i := range few {
		var options []podOption
		if i%2 == 1 {
			options = append(options, userNamespace)
		}
		s.create(options...)
	}
	var pods []*corev1.Pod
	for _, name := range s.pods {
		pods = append(pods, s.awaitPod(name, "running", running))
	}
	return pods
}

// unharmed checks that each pod runs the container that it ran before.
func (s *scene) unharmed(before []*corev1.Pod) {
	s.t.Helper()
	for _, old := range before {
		p := s.awaitPod(old.Name, "running", running)
		was, is := status(old, "main"), status(p, "main")
		if was.ContainerID != is.ContainerID || is.RestartCount != 0 {
			s.t.Errorf("pod %s: container %s became %s, %d restarts", p.Name, was.ContainerID, is.ContainerID, is.RestartCount)
		}
	}
}

// TestKubeletRestart stops kubelet, by force too, with pods running.
func TestKubeletRestart(t *testing.T) {
	s := act(t)
	pods := s.runFew()
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		s.must(s.kubelet.Stop(sig))
		s.must(s.kubelet.Start(s.ctx, nil))
		s.unharmed(pods)
	}
	late := s.run()
	want(t, "a pod after it", late.Status.Phase, corev1.PodRunning)
}

// TestContainerdRestart stops containerd, by force too, with pods running.
func TestContainerdRestart(t *testing.T) {
	s := act(t)
	pods := s.runFew()
	for _, stop := range []func() error{s.node.Daemon.Stop, s.node.Daemon.Kill} {
		s.must(stop())
		s.must(s.node.Daemon.Start(s.ctx))
		s.must(s.node.AwaitReady(s.ctx))
		s.unharmed(pods)
	}
	late := s.run()
	want(t, "a pod after it", late.Status.Phase, corev1.PodRunning)
}

// TestShimKilled kills a pod's shim: kubelet sees its container end and runs
// the pod anew.
func TestShimKilled(t *testing.T) {
	s := act(t)
	p := s.run()
	shims := rig.Shims(rig.ShimBinary(rig.OurRuntime))
	if len(shims) != 1 {
		t.Fatalf("shims %v", shims)
	}
	s.must(unix.Kill(shims[0].Pid, unix.SIGKILL))
	s.awaitPod(p.Name, "running anew", func(now *corev1.Pod) bool {
		return running(now) && status(now, "main").ContainerID != status(p, "main").ContainerID
	})
}

// cgroupValue is a file of the cgroup of a container's process: a controller's
// v1 and v2 names.
func (s *scene) cgroupValue(p *corev1.Pod, controller string, name [2]string) string {
	s.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.pid(p, "main")))
	s.must(err)
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for c := range strings.SplitSeq(fields[1], ",") {
			if c == controller || (fields[1] == "" && rig.Unified()) {
				value, err := rig.ReadCgroup(controller, fields[2], name)
				s.must(err)
				return value
			}
		}
	}
	s.t.Fatalf("no %s cgroup in %s", controller, data)
	return ""
}

// TestResize changes a running pod's CPU and memory in place.
func TestResize(t *testing.T) {
	s := act(t)
	p := s.run(requests("100m", "50Mi"), limits("200m", "100Mi"))
	s.must(s.cluster.API.Strategic(s.ctx, podPath(p.Name)+"/resize", map[string]any{"spec": map[string]any{"containers": []any{
		map[string]any{"name": "main", "resources": corev1.ResourceRequirements{
			Requests: quantities("200m", "80Mi"), Limits: quantities("400m", "160Mi")}}}}}))
	now := s.awaitPod(p.Name, "resized", func(p *corev1.Pod) bool {
		r := status(p, "main").Resources
		return r != nil && r.Limits.Cpu().MilliValue() == 400 && r.Limits.Memory().Value() == 160<<20
	})
	want(t, "restarts", status(now, "main").RestartCount, 0)
	quota := s.cgroupValue(now, "cpu", [2]string{"cpu.cfs_quota_us", "cpu.max"})
	if !strings.HasPrefix(quota, "40000") {
		t.Errorf("CPU quota %s", quota)
	}
	want(t, "memory limit", s.cgroupValue(now, "memory", [2]string{"memory.limit_in_bytes", "memory.max"}), fmt.Sprint(160<<20))
}

// TestStaticManagers switches kubelet's own resource managers on: the CPUs and
// memory nodes that it gives a Guaranteed pod are what the pod has.
func TestStaticManagers(t *testing.T) {
	s := act(t)
	restartKubelet := func(extra map[string]any) {
		t.Helper()
		s.must(s.kubelet.Stop(unix.SIGTERM))
		for _, state := range []string{"cpu_manager_state", "memory_manager_state"} {
			s.must(ignoreMissing(os.Remove(s.kubelet.root() + "/" + state)))
		}
		s.must(s.kubelet.Start(s.ctx, extra))
	}
	restartKubelet(static)
	t.Cleanup(func() {
		for _, name := range s.pods {
			s.delete(name, 1)
		}
		s.pods = nil
		restartKubelet(nil)
	})
	exclusive := s.run(limits("1", "100Mi"))
	want(t, "CPUs of the Guaranteed pod", s.cgroupValue(exclusive, "cpuset", [2]string{"cpuset.cpus", "cpuset.cpus"}), "1")
	want(t, "memory nodes of the Guaranteed pod", s.cgroupValue(exclusive, "cpuset", [2]string{"cpuset.mems", "cpuset.mems"}), "0")
	shared := s.run()
	want(t, "CPUs of the other pod", s.cgroupValue(shared, "cpuset", [2]string{"cpuset.cpus", "cpuset.cpus"}), "0")
}

func ignoreMissing(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
