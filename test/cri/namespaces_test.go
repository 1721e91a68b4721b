package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// namespaceOf is a process's namespace of a kind, as the kernel names it.
func (s *scene) namespaceOf(pid int, kind string) string {
	s.t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	s.must(err)
	return link
}

// TestNamespaces has two containers of one pod, by how its namespaces are
// asked for: which they share with each other, and which with the node.
func TestNamespaces(t *testing.T) {
	all := []string{"net", "ipc", "uts", "pid", "mnt"}
	for name, c := range map[string]struct {
		options []kubelet.PodOption
		pod     string // shared in the pod
		node    string // shared with the node
	}{
		"default":       {nil, "net ipc uts", ""},
		"shared PID":    {[]kubelet.PodOption{kubelet.SharedPID}, "net ipc uts pid", ""},
		"host PID":      {[]kubelet.PodOption{kubelet.HostPID}, "net ipc uts pid", "pid"},
		"host IPC":      {[]kubelet.PodOption{kubelet.HostIPC}, "net ipc uts", "ipc"},
		"host network":  {[]kubelet.PodOption{kubelet.HostNetwork}, "net ipc uts", "net uts"},
		"all of host's": {[]kubelet.PodOption{kubelet.HostNetwork, kubelet.HostPID, kubelet.HostIPC}, "net ipc uts pid", "net ipc uts pid"},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			p := s.pod(c.options...)
			first, second := s.pid(s.run(p, "first", idle)), s.pid(s.run(p, "second", idle))
			for _, kind := range all {
				ns := s.namespaceOf(first, kind)
				inPod := strings.Contains(" "+c.pod+" ", " "+kind+" ")
				want(t, kind+" is shared in the pod", ns == s.namespaceOf(second, kind), inPod)
				onNode := strings.Contains(" "+c.node+" ", " "+kind+" ")
				want(t, kind+" is the node's", ns == s.namespaceOf(os.Getpid(), kind), onNode)
			}
		})
	}
}

// TestSharedPID sees the pod's processes from a container, and ends one.
func TestSharedPID(t *testing.T) {
	s := begin(t)
	p := s.pod(kubelet.SharedPID)
	other := s.run(p, "other", idle)
	s.must(other.AwaitLog("ready"))
	c := s.run(p, "main", idle)
	processes := s.shell(c, "ps -o pid,args")
	for _, command := range []string{"1 /pause wait", "/payload wait"} {
		if !strings.Contains(processes, command) {
			t.Errorf("no %q among %s", command, processes)
		}
	}
	s.shell(c, `for p in $(seq 2 100); do case "$(cat /proc/$p/cmdline 2>/dev/null)" in /payload*) kill $p; break; esac; done`)
	want(t, "exit code of the other", s.exited(other).ExitCode, 0)
	want(t, "state", s.status(c).State, runtimeapi.ContainerState_CONTAINER_RUNNING)
}

// TestTargetPID is an ephemeral container for debugging: it is in the PID
// namespace of one other container.
func TestTargetPID(t *testing.T) {
	s := begin(t)
	p := s.pod()
	target, other := s.run(p, "target", idle), s.run(p, "other", idle)
	debugger := s.run(p, "debugger", idle, kubelet.Security(func(sc *runtimeapi.LinuxContainerSecurityContext) {
		sc.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: target.ID}
	}))
	ns := s.namespaceOf(s.pid(debugger), "pid")
	want(t, "the debugger's PID namespace", ns, s.namespaceOf(s.pid(target), "pid"))
	want(t, "that it is the other's", ns == s.namespaceOf(s.pid(other), "pid"), false)
	want(t, "the target, seen by the debugger", s.shell(debugger, "cat /proc/1/cmdline | tail -c +1 | head -c 8"), "/payload")
	s.must(target.Stop(s.ctx, 10)) // takes the namespace, and the debugger, along
	want(t, "exit code of the debugger", s.exited(debugger).ExitCode, 128+int32(syscall.SIGKILL))
}

// TestUserNamespace is a pod with `hostUsers: false`: all its containers are in
// one user namespace, which containerd has made; layers and volumes keep their
// owners in it.
func TestUserNamespace(t *testing.T) {
	s := begin(t)
	const host = 100000
	if !mapped() {
		s.wantUserNamespaceRefused(host)
		return
	}
	p := s.pod(kubelet.UserNamespace(host))
	volume := s.volume(p, "data")
	s.must(os.WriteFile(filepath.Join(volume, "theirs"), nil, 0o600))
	s.must(os.Chown(filepath.Join(volume, "theirs"), 7, 8))
	mount := kubelet.Mount(&runtimeapi.Mount{HostPath: volume, ContainerPath: "/volume"})
	first := s.run(p, "first", idle, kubelet.Image(kubelet.LayeredImage), mount)
	second := s.run(p, "second", idle, kubelet.Image(kubelet.LayeredImage), mount)

	mapping := fmt.Sprintf("uid_map 0 %d 65536\ngid_map 0 %d 65536", host, host)
	for _, c := range []*kubelet.Container{first, second} {
		want(t, "ids", s.shell(c, "id -u; /payload ids | grep map"), "0\n"+mapping)
		want(t, "tree inside", s.shell(c, "/payload tree /data")+"\n", s.Tree.String())
		s.wantOwner(fmt.Sprintf("/proc/%d", s.pid(c)), host, host)
	}
	for _, kind := range []string{"user", "net", "ipc", "uts"} {
		want(t, kind+" namespace", s.namespaceOf(s.pid(first), kind), s.namespaceOf(s.pid(second), kind))
	}
	want(t, "that the user namespace is the node's", s.namespaceOf(s.pid(first), "user") == s.namespaceOf(os.Getpid(), "user"), false)

	want(t, "owner of the volume's file", s.shell(first, "stat -c %u:%g /volume/theirs"), "7:8")
	s.shell(first, "echo > /volume/ours")
	s.wantOwner(filepath.Join(volume, "ours"), 0, 0)
	s.shell(second, "test -e /volume/ours && echo > /data/new")
}

// wantUserNamespaceRefused sees why such a pod can't be run here, and nothing
// is left of it. containerd 1.7 does not map the ids of volumes, which kubelet
// asks for; and by a registration with a table of options that are not runc's,
// containerd does not understand its own options.
func (s *scene) wantUserNamespaceRefused(host uint32) {
	s.t.Helper()
	reason := `can't unmarshal type "runtimeoptions.v1.Options"`
	if old() {
		reason = "idmap mounts not yet supported"
	}
	p, err := s.tryPod(kubelet.UserNamespace(host))
	if err == nil {
		_, err = p.Run(s.ctx, "main", idle)
	}
	if err == nil || !strings.Contains(err.Error(), reason) {
		s.t.Errorf("a pod in a user namespace: %v; want %s", err, reason)
	}
}

func (s *scene) wantOwner(path string, uid, gid uint32) {
	s.t.Helper()
	owner, err := rig.Owner(path)
	s.must(err)
	want(s.t, "owner of "+path, owner, fmt.Sprint(uid, ":", gid))
}

// TestUserNamespacesDoNotMeet runs pods of two mappings, and one of none, on
// one image.
func TestUserNamespacesDoNotMeet(t *testing.T) {
	s := begin(t)
	if !mapped() {
		skip(t, "no pods in user namespaces here: TestUserNamespace asserts why")
	}
	for host, p := range map[uint32]*kubelet.Pod{
		0:      s.pod(),
		100000: s.pod(kubelet.UserNamespace(100000)),
		300000: s.pod(kubelet.UserNamespace(300000)),
	} {
		c := s.run(p, "main", idle, kubelet.Image(kubelet.LayeredImage))
		want(t, "owner inside", s.shell(c, "stat -c %u:%g /data/added-002"), "2:1002")
		s.wantOwner(fmt.Sprintf("/proc/%d/root/data/added-002", s.pid(c)), host+2, host+1002)
	}
}
