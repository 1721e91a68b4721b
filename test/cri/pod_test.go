package cri

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// TestHandler asks what the runtime handler can do, on which kubelet decides
// whether it may run pods in user namespaces and mounts read-only throughout.
// 1.7 says nothing of handlers.
func TestHandler(t *testing.T) {
	s := begin(t)
	r, err := s.Runtime.Status(s.ctx, &runtimeapi.StatusRequest{})
	s.must(err)
	for _, h := range r.RuntimeHandlers {
		if h.Name == "numa" {
			want(t, "user namespaces", h.Features.GetUserNamespaces(), true)
			want(t, "recursive read-only mounts", h.Features.GetRecursiveReadOnlyMounts(), true)
			return
		}
	}
	if !old() {
		t.Errorf("no handler numa in %v", r.RuntimeHandlers)
	}
}

// TestPod follows a pod with three containers: all are in one shim, see the
// pod's host name, write to their logs and end with statuses of their own; one
// is restarted; and the pod goes as kubelet removes one.
func TestPod(t *testing.T) {
	s := begin(t)
	p := s.pod()
	status, err := p.Status(s.ctx)
	s.must(err)
	want(t, "state of the sandbox", status.State, runtimeapi.PodSandboxState_SANDBOX_READY)

	first := s.run(p, "first", idle)
	second := s.run(p, "second", []string{"/bin/sh", "-c", "hostname; echo to stderr >&2; exit 3"})
	third := s.run(p, "third", idle, kubelet.Image(kubelet.LayeredImage))
	shim := s.shim(p)
	want(t, "the tree of the many layers", s.shell(third, "/payload tree /data")+"\n", s.Tree.String())

	ended := s.exited(second)
	want(t, "exit code", ended.ExitCode, 3)
	want(t, "reason", ended.Reason, "Error")
	want(t, "stdout", s.log(second, "stdout"), p.Config.Hostname+"\n")
	want(t, "stderr", s.log(second, "stderr"), "to stderr\n")
	if ended.FinishedAt < ended.StartedAt || ended.StartedAt < ended.CreatedAt {
		t.Errorf("created %d, started %d, finished %d", ended.CreatedAt, ended.StartedAt, ended.FinishedAt)
	}

	again := s.run(p, "second", []string{"/bin/true"}, kubelet.Attempt(1))
	completed := s.exited(again)
	want(t, "exit code of the second attempt", completed.ExitCode, 0)
	want(t, "reason", completed.Reason, "Completed")
	s.must(second.Remove(s.ctx))
	names, err := p.ContainerNames(s.ctx)
	s.must(err)
	want(t, "containers", fmt.Sprint(names), "[first second third]")

	want(t, "the pod's shim", s.shim(p), shim)
	for _, c := range []*kubelet.Container{first, third} {
		want(t, "state", s.status(c).State, runtimeapi.ContainerState_CONTAINER_RUNNING)
	}
	// What the shim attaches on the host is the choice of the registration.
	overlays := rig.CountMounts("overlay overlay on " + s.Daemon.State() + "/io.containerd.runtime.v2.task/" + kubelet.Namespace)
	switch {
	case ours() && !attached():
		want(t, "root filesystems in the host's mount table", overlays, 0)
	default:
		want(t, "root filesystems in the host's mount table", overlays, 3)
	}
	s.must(p.Stop(s.ctx))
	status, err = p.Status(s.ctx)
	s.must(err)
	want(t, "state of the stopped sandbox", status.State, runtimeapi.PodSandboxState_SANDBOX_NOTREADY)
	want(t, "state of its container", s.status(first).State, runtimeapi.ContainerState_CONTAINER_EXITED)
	s.must(p.Remove(s.ctx))
}

// TestPodCgroup sees the containers in the cgroup that kubelet has made for
// the pod, each with its own below.
func TestPodCgroup(t *testing.T) {
	s := begin(t)
	p := s.pod()
	c := s.run(p, "main", idle)
	for _, controller := range []string{"cpu", "memory", "pids", "cpuset"} {
		for _, id := range []string{p.ID, c.ID} {
			procs, err := rig.ReadCgroup(controller, p.Cgroup+"/"+id, [2]string{"cgroup.procs", "cgroup.procs"})
			s.must(err)
			if id == c.ID {
				want(t, controller+" cgroup's processes", procs, fmt.Sprint(s.pid(c)))
			} else if procs == "" {
				t.Errorf("the sandbox has no process in its %s cgroup", controller)
			}
		}
	}
}

// TestFailingStart has commands that can't be run: the error is told, as a
// container that ended with kubelet's StartError, and the pod goes on.
func TestFailingStart(t *testing.T) {
	s := begin(t)
	p := s.pod()
	other := s.run(p, "other", idle)
	for name, command := range map[string][]string{
		"missing":        {"/no/such/program"},
		"not-executable": {"/etc/passwd"},
	} {
		c, err := p.Create(s.ctx, name, command)
		s.must(err)
		err = c.Start(s.ctx)
		if err == nil || !strings.Contains(err.Error(), command[0]) {
			t.Errorf("start of %s: %v", command[0], err)
		}
		status := s.status(c)
		want(t, "state", status.State, runtimeapi.ContainerState_CONTAINER_EXITED)
		want(t, "reason", status.Reason, "StartError")
		want(t, "exit code", status.ExitCode, 128)
		s.must(c.Remove(s.ctx))
	}
	want(t, "state of the other", s.status(other).State, runtimeapi.ContainerState_CONTAINER_RUNNING)
}

// TestShimKeepsNothing has a pod's shim run containers and commands until they
// are gone: it has the descriptors that it had before the first.
func TestShimKeepsNothing(t *testing.T) {
	s := begin(t)
	p := s.pod()
	cycle := func(i uint32) {
		c := s.run(p, "main", idle, kubelet.Attempt(i))
		want(t, "output", s.shell(c, "echo hello"), "hello")
		s.must(c.Stop(s.ctx, 10))
		s.must(c.Remove(s.ctx))
	}
	cycle(0)
	shim := s.shim(p)
	var before, after string
	rig.Eventually(bound, func() bool { // what the first cycle left to its end
		last := before
		before = descriptors(shim.Pid)
		return last == before
	})
	for i := range uint32(5) {
		cycle(i + 1)
	}
	if !rig.Eventually(bound, func() bool {
		after = descriptors(shim.Pid)
		return strings.Count(after, "\n") <= strings.Count(before, "\n")
	}) {
		t.Errorf("the shim had the descriptors\n%sand has\n%s", before, after)
	}
}

// descriptors lists what a process has open, without numbers, which change.
func descriptors(pid int) string {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	var list strings.Builder
	for _, e := range entries {
		target, err := os.Readlink(dir + "/" + e.Name())
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		fmt.Fprintln(&list, strings.SplitN(target, ":", 2)[0])
	}
	return list.String()
}
