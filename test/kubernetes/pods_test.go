package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// TestPod runs a pod of two containers, plain and in a user namespace, and of
// many layers: both containers are in one shim, and the host has no mount of
// either root filesystem.
func TestPod(t *testing.T) {
	for name, options := range map[string][]podOption{"plain": nil, "user namespace": {userNamespace}} {
		t.Run(name, func(t *testing.T) {
			s := act(t)
			layered := shell("layered", "cat /proc/self/uid_map; /payload tree /data; exec /payload wait")
			layered.Image = kubelet.LayeredImage
			p := s.run(append(options, containers(container("main", idle...), layered))...)
			var log string
			if !rig.Eventually(bound, func() bool { log = s.log(p, "layered"); return strings.Contains(log, s.node.Tree.String()) }) {
				t.Errorf("the container of many layers sees %q", log)
			}
			var inside, host, size int
			fmt.Sscan(log, &inside, &host, &size)
			if mapped := len(options) > 0; mapped == (host == 0) || inside != 0 {
				t.Errorf("uid_map begins with %d %d %d", inside, host, size)
			}
			want(t, "root filesystems in the host's mount table",
				rig.CountMounts("overlay overlay on "+s.node.Daemon.State()+"/io.containerd.runtime.v2.task"), 0)
			want(t, "shims", len(rig.Shims(rig.ShimBinary(rig.OurRuntime))), 1)
		})
	}
}

// TestQoSClasses runs a pod of each class below the cgroup that kubelet has
// made for it.
func TestQoSClasses(t *testing.T) {
	for name, c := range map[string]struct {
		options []podOption
		parent  string
	}{
		"Guaranteed": {[]podOption{limits("100m", "50Mi")}, "kubepods/pod"},
		"Burstable":  {[]podOption{requests("50m", "")}, "kubepods/burstable/pod"},
		"BestEffort": {nil, "kubepods/besteffort/pod"},
	} {
		t.Run(name, func(t *testing.T) {
			s := act(t)
			p := s.run(c.options...)
			want(t, "class", string(p.Status.QOSClass), name)
			cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.pid(p, "main")))
			s.must(err)
			if wanted := s.kubelet.cgroup() + "/" + c.parent + string(p.UID) + "/"; !strings.Contains(string(cgroup), wanted) {
				t.Errorf("cgroups %s: want %s", cgroup, wanted)
			}
		})
	}
}

// TestProbes has exec probes: a container gets ready, and one that is not
// alive is restarted.
func TestProbes(t *testing.T) {
	s := act(t)
	probe := func(command string) *corev1.Probe {
		return &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 30,
			ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", command}}}}
	}
	main := shell("main", "sleep 1; touch /tmp/ready; exec /payload wait")
	main.ReadinessProbe = probe("test -e /tmp/ready")
	sick := shell("sick", "exec /payload wait")
	sick.LivenessProbe = probe("exit 1")
	name := s.create(containers(main, sick))
	s.awaitPod(name, "ready and restarted", func(p *corev1.Pod) bool {
		return status(p, "main").Ready && status(p, "sick").RestartCount > 0
	})
}

// TestInitAndSidecar runs an init container to its end, then a sidecar, then
// the main container, which ends and so ends the sidecar.
func TestInitAndSidecar(t *testing.T) {
	s := act(t)
	always := corev1.ContainerRestartPolicyAlways
	mount := corev1.VolumeMount{Name: "work", MountPath: "/work"}
	first := shell("first", "echo first > /work/order")
	sidecar := shell("sidecar", "echo sidecar >> /work/order; exec /payload wait")
	sidecar.RestartPolicy = &always
	main := shell("main", "until grep -q sidecar /work/order; do sleep 0.1; done; cat /work/order")
	for _, c := range []*corev1.Container{&first, &sidecar, &main} {
		c.VolumeMounts = []corev1.VolumeMount{mount}
	}
	p := s.finish(initContainers(first, sidecar), containers(main),
		volume("work", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	want(t, "phase", p.Status.Phase, corev1.PodSucceeded)
	want(t, "order", s.log(p, "main"), "first\nsidecar\n")
}

// TestVolumes mounts volumes of several kinds, plain and in a user namespace.
func TestVolumes(t *testing.T) {
	for name, options := range map[string][]podOption{"plain": nil, "user namespace": {userNamespace}} {
		t.Run(name, func(t *testing.T) {
			s := act(t)
			host := filepath.Join(s.node.Dir, "host-"+strings.ReplaceAll(name, " ", "-"))
			s.must(os.MkdirAll(host, 0o777))
			s.must(os.Chmod(host, 0o777))
			cm := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: filepath.Base(host)}, Data: map[string]string{"key": "of the map"}}
			path := namespacesPath + "/default/configmaps"
			s.must(s.cluster.API.Create(s.ctx, path, cm, nil))
			t.Cleanup(func() { s.must(s.cluster.API.Delete(s.ctx, path+"/"+cm.Name, 0)) })

			main := shell("main", "set -e; cat /config/key; echo; echo x > /empty/f; stat -c %u /empty/f; "+
				"echo x > /memory/f; echo from inside > /host/f; cat /pod/name; ! touch /config/no 2>/dev/null; ! touch /ro/no 2>/dev/null; echo done")
			main.VolumeMounts = []corev1.VolumeMount{
				{Name: "config", MountPath: "/config"}, {Name: "empty", MountPath: "/empty"}, {Name: "memory", MountPath: "/memory"},
				{Name: "host", MountPath: "/host"}, {Name: "pod", MountPath: "/pod"}, {Name: "host", MountPath: "/ro", ReadOnly: true},
			}
			p := s.finish(append(options, containers(main),
				volume("config", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: cm.Name}}}),
				volume("empty", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
				volume("memory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}),
				volume("host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}),
				volume("pod", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
					{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}}))...)
			want(t, "output", s.log(p, "main"), "of the map\n0\n"+p.Name+"done\n")
			want(t, "phase", p.Status.Phase, corev1.PodSucceeded)
			data, err := os.ReadFile(filepath.Join(host, "f"))
			s.must(err)
			want(t, "the host's file", string(data), "from inside\n")
		})
	}
}

// TestOOMKilled tells why a container ended.
func TestOOMKilled(t *testing.T) {
	s := act(t)
	p := s.finish(containers(shell("main", "tail /dev/zero")), limits("", "20Mi"))
	ended := status(p, "main").State.Terminated
	if ended == nil || ended.Reason != "OOMKilled" || ended.ExitCode != 137 {
		t.Errorf("ended as %+v", ended)
	}
}

// TestDeletion ends a pod that catches SIGTERM, and one that does not, and has
// the first one's pre-stop hook run.
func TestDeletion(t *testing.T) {
	s := act(t)
	host := filepath.Join(s.node.Dir, "deletion")
	s.must(os.MkdirAll(host, 0o777))
	polite := shell("polite", "trap 'echo TERM >> /host/order; exit 0' TERM; while :; do sleep 0.1; done")
	polite.VolumeMounts = []corev1.VolumeMount{{Name: "host", MountPath: "/host"}}
	polite.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
		Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", "echo pre-stop >> /host/order"}}}}
	p := s.run(containers(polite), volume("host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}))
	s.delete(p.Name, 60)
	order, err := os.ReadFile(filepath.Join(host, "order"))
	s.must(err)
	want(t, "order", string(order), "pre-stop\nTERM\n")

	deaf := s.run(containers(container("deaf", "/bin/sleep", "100000")))
	s.delete(deaf.Name, 1)
}

// TestNetwork has one pod reach another by its address, and kubelet reach a
// pod for its probe.
func TestNetwork(t *testing.T) {
	s := act(t)
	server := shell("server", "while :; do echo hello | nc -l -p 8080 >/dev/null; done")
	server.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
		TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}}
	name := s.create(containers(server))
	p := s.awaitPod(name, "ready", func(p *corev1.Pod) bool { return status(p, "server").Ready })
	client := s.finish(containers(shell("client", "for i in $(seq 50); do nc -w 2 "+p.Status.PodIP+" 8080 </dev/null && exit; sleep 0.2; done; exit 1")))
	want(t, "answer", s.log(client, "client"), "hello\n")
}
