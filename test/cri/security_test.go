package cri

import (
	"fmt"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
)

// field is a line of /proc/1/status in the container, without its name.
func (s *scene) field(c *kubelet.Container, name string) string {
	s.t.Helper()
	return strings.Join(strings.Fields(s.shell(c, "grep ^"+name+": /proc/1/status"))[1:], " ")
}

// security is a container option for one change of the security context.
type security = runtimeapi.LinuxContainerSecurityContext

// TestSeccomp has the container filtered by the runtime's default profile, or
// not at all.
func TestSeccomp(t *testing.T) {
	s := begin(t)
	p := s.pod()
	filtered := s.run(p, "filtered", idle, kubelet.Security(func(sc *security) {
		sc.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	}))
	free := s.run(p, "free", idle)
	want(t, "mode with the default profile", s.field(filtered, "Seccomp"), "2") // SECCOMP_MODE_FILTER
	want(t, "mode without a profile", s.field(free, "Seccomp"), "0")
	r, err := filtered.Exec(s.ctx, 0, "/bin/busybox", "unshare", "-m", "/bin/true")
	s.must(err)
	want(t, "that unshare ends well under the filter", r.Code == 0, false)
}

// Bits of the capabilities that the tests add and drop (capabilities(7)).
const (
	capNetBind = 10
	capNetRaw  = 13
	capSysTime = 25
)

// TestCapabilities adds and drops some of the default ones, or all.
func TestCapabilities(t *testing.T) {
	s := begin(t)
	p := s.pod()
	changed := func(name string, c *runtimeapi.Capability) string {
		container := s.run(p, name, idle, kubelet.Security(func(sc *security) { sc.Capabilities = c }))
		return s.field(container, "CapBnd") + " " + s.field(container, "CapEff")
	}
	// The default set of containerd: as Docker's.
	const normal = 0xa80425fb
	for name, c := range map[string]struct {
		change *runtimeapi.Capability
		set    uint64
	}{
		"default": {nil, normal},
		"added":   {&runtimeapi.Capability{AddCapabilities: []string{"SYS_TIME"}, DropCapabilities: []string{"NET_RAW"}}, (normal | 1<<capSysTime) &^ (1 << capNetRaw)},
		"few":     {&runtimeapi.Capability{AddCapabilities: []string{"NET_BIND_SERVICE"}, DropCapabilities: []string{"ALL"}}, 1 << capNetBind},
		"none":    {&runtimeapi.Capability{DropCapabilities: []string{"ALL"}}, 0},
	} {
		set := hex16(c.set)
		want(t, name+" capabilities", changed(name, c.change), set+" "+set)
	}
}

// TestPrivileged sees what a privileged container has: every capability that
// the node's containerd has, and its devices.
func TestPrivileged(t *testing.T) {
	s := begin(t)
	p := s.pod(kubelet.Privileged)
	c := s.run(p, "main", idle, kubelet.Security(func(sc *security) {
		sc.Privileged, sc.MaskedPaths, sc.ReadonlyPaths = true, nil, nil
	}))
	want(t, "SYS_ADMIN and mounts", s.shell(c, "mount -t tmpfs none /tmp && echo mounted"), "mounted")
	want(t, "the node's devices", s.shell(c, "test -c /dev/kmsg && echo there"), "there")
}

// TestPaths has kubelet's masked paths empty and its read-only ones so.
func TestPaths(t *testing.T) {
	s := begin(t)
	p := s.pod()
	c := s.run(p, "main", idle)
	want(t, "size of /proc/keys", s.shell(c, "cat /proc/keys 2>/dev/null | wc -c"), "0")
	want(t, "entries of /sys/firmware", s.shell(c, "ls /sys/firmware | wc -l"), "0")
	want(t, "that /proc/sys is writable", s.shell(c, "(echo x > /proc/sys/kernel/domainname) 2>/dev/null && echo yes || echo no"), "no")
	want(t, "that /sys is writable", s.shell(c, "(echo > /sys/kernel/profiling) 2>/dev/null && echo yes || echo no"), "no")
	open := s.run(p, "open", idle, kubelet.Security(func(sc *security) { sc.MaskedPaths, sc.ReadonlyPaths = nil, nil }))
	want(t, "that unmasked /proc/sys is writable", s.shell(open, "(echo x > /proc/sys/kernel/domainname) 2>/dev/null && echo yes || echo no"), "yes")
}

// TestUser runs as another user, with groups besides, and no way to gain
// privileges.
func TestUser(t *testing.T) {
	s := begin(t)
	c := s.run(s.pod(), "main", idle, kubelet.Security(func(sc *security) {
		sc.RunAsUser, sc.RunAsGroup = &runtimeapi.Int64Value{Value: 1000}, &runtimeapi.Int64Value{Value: 2000}
		sc.SupplementalGroups = []int64{3000, 4000}
		sc.NoNewPrivs, sc.ReadonlyRootfs = true, true
	}))
	want(t, "ids", s.shell(c, "id -u; id -g"), "1000\n2000")
	want(t, "groups", s.field(c, "Groups"), "2000 3000 4000")
	want(t, "no_new_privs", s.field(c, "NoNewPrivs"), "1")
	want(t, "effective capabilities", s.field(c, "CapEff"), hex16(0))
	want(t, "that / is writable", s.shell(c, "touch /tmp/file 2>/dev/null && echo yes || echo no"), "no")
	want(t, "termination log", s.shell(c, "echo bye > /dev/termination-log && cat /dev/termination-log"), "bye")
}

// TestSysctls sets parameters of the pod's namespaces, and not the node's.
func TestSysctls(t *testing.T) {
	s := begin(t)
	p := s.pod(kubelet.Sysctl("kernel.shm_rmid_forced", "1"), kubelet.Sysctl("net.ipv4.ip_local_port_range", "2000 2999"))
	c := s.run(p, "main", idle)
	want(t, "sysctls", s.shell(c, "cat /proc/sys/kernel/shm_rmid_forced; cat /proc/sys/net/ipv4/ip_local_port_range"), "1\n2000\t2999")
	plain := s.run(s.pod(), "main", idle)
	want(t, "those of a pod that asks for none", s.shell(plain, "cat /proc/sys/kernel/shm_rmid_forced"), "0")
}

// TestWorkingDirectory sets directory and environment.
func TestWorkingDirectory(t *testing.T) {
	s := begin(t)
	out := s.output(s.pod(), "main", "pwd; echo $GREETING", kubelet.WithConfig(func(c *runtimeapi.ContainerConfig) {
		c.WorkingDir = "/new/directory"
		c.Envs = append(c.Envs, &runtimeapi.KeyValue{Key: "GREETING", Value: []byte("hello")})
	}))
	want(t, "output", out, "/new/directory\nhello\n")
}

// hex16 is how /proc/pid/status writes a set of capabilities.
func hex16(set uint64) string { return fmt.Sprintf("%016x", set) }
