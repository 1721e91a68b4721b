package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// program has the container run something else.
func program(args ...string) func(*oci.Spec) {
	return func(s *oci.Spec) { s.Process.Args = args }
}

var badProcesses = []badSpec{
	{name: "no arguments", edit: program(), words: "process.args must not be empty"},
	{name: "empty program", edit: program(""), words: `exec: "": executable file not found in $PATH`},
	{name: "missing program", edit: program("/no/such/program"), words: `exec: "/no/such/program": stat /no/such/program: no such file or directory`},
	{name: "program not in PATH", edit: program("nosuch"), words: `exec: "nosuch": executable file not found in $PATH`},
	{name: "program not allowed", edit: program("/etc/passwd"), words: `exec: "/etc/passwd": permission denied`},
	{name: "directory as program", edit: program("/bin"), words: `exec: "/bin": is a directory`},
	{name: "relative cwd", edit: func(s *oci.Spec) { s.Process.Cwd = "relative" }, words: `process.cwd "relative" is not an absolute path`},
	{name: "file as cwd", edit: func(s *oci.Spec) { s.Process.Cwd = "/etc/passwd" }, words: "/etc/passwd: not a directory"},
	{name: "descriptor as cwd", edit: func(s *oci.Spec) { s.Process.Cwd = "/proc/self/fd/3" }, words: "/proc/self/fd/3"},
	{name: "no process", edit: func(s *oci.Spec) { s.Process = nil }, words: "process must be set"},
	{name: "last user id", edit: func(s *oci.Spec) { s.Process.User.UID = 1<<32 - 1 }, words: "unmapped uid 4294967295", ours: true},
	{name: "unknown limit", edit: func(s *oci.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_BOGUS", Hard: 1, Soft: 1}}
	}, words: "RLIMIT_BOGUS"},
	{name: "soft limit above the hard one", edit: func(s *oci.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 10, Soft: 100}}
	}, words: "setting rlimit type 7: invalid argument"},
	{name: "scheduler", edit: func(s *oci.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_BOGUS"} }, words: "SCHED_BOGUS", ours: true},
	{name: "SELinux label", edit: func(s *oci.Spec) { s.Process.SelinuxLabel = "system_u:object_r:x:s0" }, words: "selinux is disabled", ours: true},
	{name: "environment without =", edit: func(s *oci.Spec) { s.Process.Env = []string{"NAME"} }, words: "missing '='", ours: true},
}

var badSections = []badSpec{
	{name: "no root", edit: func(s *oci.Spec) { s.Root = nil }, words: "root.path must be set"},
	{name: "missing root", edit: func(s *oci.Spec) { s.Root.Path = "/no/such/root" }, words: "/no/such/root: no such file or directory"},
	{name: "NUL in root", edit: func(s *oci.Spec) { s.Root.Path = "a\x00b" }, words: "invalid argument"},
	{name: "no linux", edit: func(s *oci.Spec) { s.Linux = nil }, words: "linux must be set", ours: true},
	{name: "propagation", edit: func(s *oci.Spec) { s.Linux.RootfsPropagation = "bogus" }, words: "rootfsPropagation=bogus is not supported", ours: true},
	{name: "seccomp action", edit: func(s *oci.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_BOGUS"} }, words: "SCMP_ACT_BOGUS"},
	{name: "seccomp agent", edit: func(s *oci.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/no/such", Syscalls: []specs.LinuxSyscall{{Names: []string{"chmod"}, Action: specs.ActNotify}}}
	}, words: "seccomp agent"},
	{name: "missing sysctl", edit: func(s *oci.Spec) { s.Linux.Sysctl = map[string]string{"net.no.such": "1"} }, words: "net/no/such: no such file or directory"},
	{name: "sysctl of the host", edit: func(s *oci.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }, words: `"vm.swappiness" is not in a separate kernel namespace`, ours: true},
	{name: "sysctl that escapes", edit: func(s *oci.Spec) { s.Linux.Sysctl = map[string]string{"net/../kernel/core_pattern": "|/x"} }, words: "no such file or directory"},
	{name: "memory policy", edit: func(s *oci.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "bogus", Nodes: "0"} }, words: `invalid memory policy mode "bogus"`, ours: true},
	{name: "network device", edit: func(s *oci.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"nosuch0": {Name: "a/b"}} }, words: `invalid network device name "a/b"`, ours: true},
	{name: "time without its namespace", edit: func(s *oci.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1}} }, words: "time namespace", ours: true},
}

// badLimits includes the cgroup of another container.
func badLimits(other *victim) []badSpec {
	cpu := func(c specs.LinuxCPU) func(*oci.Spec) {
		return func(s *oci.Spec) { s.Linux.Resources.CPU = &c }
	}
	path := func(path string) func(*oci.Spec) {
		return func(s *oci.Spec) { s.Linux.CgroupsPath = path }
	}
	return []badSpec{
		{name: "missing CPU", edit: cpu(specs.LinuxCPU{Cpus: "4095"}), words: "4095"},
		{name: "malformed cpuset", edit: cpu(specs.LinuxCPU{Cpus: "0-,x"}), words: "0-,x"},
		{name: "missing node", edit: cpu(specs.LinuxCPU{Mems: "900"}), words: "900"},
		{name: "device type", edit: func(s *oci.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "q"}} }, words: `invalid device type "q"`, ours: true},
		{name: "device rule", edit: func(s *oci.Spec) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "q", Access: "rwm"}}
		}, words: `invalid cgroup device type "q"`, ours: true},
		{name: "device in place of the root", edit: func(s *oci.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/", Type: "c", Major: 1, Minor: 3}}
		}, words: "device", ours: true},
		{name: "cgroup of another container", edit: path(other.cgroup()), words: "container's cgroup is not empty", ours: true},
		{name: "root of the cgroups", edit: path("/"), words: "container's cgroup is not empty", ours: true},
		{name: "beyond the root of the cgroups", edit: path("/../.."), words: "container's cgroup is not empty", ours: true},
	}
}

func badNamespaces(t *testing.T) []badSpec {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	joining := func(kind specs.LinuxNamespaceType, path string) func(*oci.Spec) {
		return func(s *oci.Spec) {
			for i := range s.Linux.Namespaces {
				if ns := &s.Linux.Namespaces[i]; ns.Type == kind {
					ns.Path = path
					return
				}
			}
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
		}
	}
	return []badSpec{
		{name: "unknown namespace", edit: joining("bogus", ""), words: "bogus"},
		{name: "namespace twice", edit: func(s *oci.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0])
		}, words: "malformed spec file: duplicated ns", ours: true},
		{name: "missing namespace", edit: joining(specs.NetworkNamespace, "/no/such/ns"), words: "network namespace /no/such/ns: no such file or directory"},
		{name: "file as namespace", edit: joining(specs.NetworkNamespace, file), words: "there is no namespace (any more)"},
		{name: "FIFO as namespace", edit: joining(specs.IPCNamespace, fifo), words: "there is no namespace (any more)", ours: true},
		{name: "namespace of another type", edit: joining(specs.PIDNamespace, "/proc/self/ns/net"), words: "a namespace of another type"},
		{name: "user namespace of a process that is gone", edit: joining(specs.UserNamespace, "/proc/4194305/ns/user"), words: "/proc/4194305/ns/user: no such file or directory"},
		{name: "the host's mount namespace", edit: joining(specs.MountNamespace, "/proc/self/ns/mnt"), words: "it is the host's", ours: true},
	}
}

// mapped gives the container a user namespace of its own.
func mapped(uids, gids []specs.LinuxIDMapping) func(*oci.Spec) {
	return func(s *oci.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = uids, gids
	}
}

var (
	someIDs = []specs.LinuxIDMapping{{HostID: mappedRoot, Size: 65536}}
	noRoot  = []specs.LinuxIDMapping{{ContainerID: 1, HostID: mappedRoot, Size: 10}}
	overlap = []specs.LinuxIDMapping{{HostID: mappedRoot, Size: 20}, {ContainerID: 10, HostID: mappedRoot + 10, Size: 20}}
	tooMany = func() (ids []specs.LinuxIDMapping) {
		for i := range uint32(341) { // user_namespaces(7): 340
			ids = append(ids, specs.LinuxIDMapping{ContainerID: 2 * i, HostID: mappedRoot + 3*i, Size: 1})
		}
		return ids
	}()
)

var badMappings = []badSpec{
	{name: "empty mapping", edit: mapped([]specs.LinuxIDMapping{{}}, []specs.LinuxIDMapping{{}}), words: "no mapping found for uid 0"},
	{name: "no mapping", edit: mapped(nil, nil), words: "no uid mappings found", ours: true},
	{name: "mapping without root", edit: mapped(noRoot, someIDs), words: "no mapping found for uid 0"},
	{name: "overlapping mapping", edit: mapped(overlap, someIDs), words: "uid_map: Invalid argument"},
	{name: "mapping of too many parts", edit: mapped(tooMany, tooMany), words: "uid_map: Invalid argument"},
	{name: "mapping past the last id", edit: mapped([]specs.LinuxIDMapping{{HostID: 4294967290, Size: 100}}, someIDs), words: "uid_map: Invalid argument"},
	{name: "user that is not mapped", edit: func(s *oci.Spec) {
		mapped(someIDs, someIDs)(s)
		s.Process.User.UID = 70000
	}, words: "unmapped uid 70000"},
}

func badMounts(t *testing.T) []badSpec {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	mounting := func(kind, source, target string, options ...string) func(*oci.Spec) {
		return func(s *oci.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: kind, Source: source, Destination: target, Options: options})
		}
	}
	return []badSpec{
		{name: "missing mount source", edit: mounting("bind", "/no/such/source", "/mnt", "bind"), words: "/no/such/source: no such file or directory"},
		{name: "mount source to nowhere", edit: mounting("bind", filepath.Join(dir, "dangling"), "/mnt", "bind"), words: "no such file or directory"},
		{name: "unknown file system", edit: mounting("bogusfs", "none", "/mnt"), words: "no such device"},
		{name: "mount without a target", edit: mounting("tmpfs", "tmpfs", ""), words: "is on the top of rootfs", ours: true},
		{name: "mount on the root", edit: mounting("bind", dir, "/", "bind"), words: "is on the top of rootfs", ours: true},
		{name: "mount by a process's root", edit: mounting("tmpfs", "tmpfs", "/proc/self/root/x"), words: "/proc/self/root/x", ours: true},
		{name: "mount on a descriptor", edit: mounting("tmpfs", "tmpfs", "/proc/self/fd/3"), words: "/proc/self/fd/3"},
		{name: "mount on /proc", edit: mounting("tmpfs", "tmpfs", "/proc"), words: "check proc-safety of /proc mount", ours: true},
		{name: "mount below a file", edit: mounting("tmpfs", "tmpfs", "/etc/passwd/x"), words: "not a directory"},
		{name: "file on a directory", edit: mounting("bind", file, "/etc", "bind"), words: "not a directory"},
		{name: "directory on a file", edit: mounting("bind", dir, "/etc/passwd", "bind"), words: "not a directory"},
		{name: "read-only /dev without a null device", edit: mounting("bind", dir, "/dev", "bind", "ro"), words: "/dev", ours: true},
		{name: "unknown mount option", edit: mounting("tmpfs", "tmpfs", "/mnt", "bogus=1"), words: "bogus=1: invalid argument"},
		{name: "overlay without its layer", edit: mounting("overlay", "overlay", "/mnt", "lowerdir=/no/such"), words: "lowerdir=/no/such: no such file or directory"},
		{name: "long name of a target", edit: mounting("tmpfs", "tmpfs", "/"+strings.Repeat("a", 300)), words: "file name too long"},
		{name: "mapped mount without a mapping", edit: mounting("bind", dir, "/mnt", "bind", "idmap"), words: "must have both uid and gid mappings", ours: true},
	}
}

// hook is one that runs the shell.
func hook(script string) []specs.Hook {
	return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}}}
}

var badHooks = []badSpec{
	{name: "failing hook", edit: func(s *oci.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: hook("exit 3")} }, words: "error running createRuntime hook #0: exit status 3"},
	{name: "failing prestart hook", edit: func(s *oci.Spec) {
		//lint:ignore SA1019 deprecated, and in use
		s.Hooks = &specs.Hooks{Prestart: hook("exit 3")}
	}, words: "error running prestart hook #0: exit status 3"},
	{name: "failing poststart hook", edit: func(s *oci.Spec) { s.Hooks = &specs.Hooks{Poststart: hook("exit 3")} }, words: "error running poststart hook #0: exit status 3", ours: true},
	{name: "missing hook", edit: func(s *oci.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/no/such/hook"}}}
	}, words: "/no/such/hook: no such file or directory"},
	{name: "missing hook in the container", edit: func(s *oci.Spec) {
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/no/such/hook"}}}
	}, words: "/no/such/hook: no such file or directory"},
	{name: "hook that takes too long", edit: func(s *oci.Spec) {
		second := 1
		h := hook("exec sleep 1000")
		h[0].Timeout = &second
		s.Hooks = &specs.Hooks{CreateRuntime: h}
	}, words: "hook ran past specified timeout"},
}

// TestOddSpecs runs what looks wrong and is not.
func TestOddSpecs(t *testing.T) {
	s := begin(t)
	v := s.victim()
	for name, edit := range map[string]func(*oci.Spec){
		"no resources":       func(s *oci.Spec) { s.Linux.Resources = nil },
		"no capabilities":    func(s *oci.Spec) { s.Process.Capabilities = nil },
		"slash after root":   func(s *oci.Spec) { s.Root.Path = "rootfs/" },
		"cwd above the root": func(s *oci.Spec) { s.Process.Cwd = "/../.." },
		"libcontainer's own variables": func(s *oci.Spec) {
			s.Process.Env = append(s.Process.Env, "_LIBCONTAINER_LOGPIPE=1", "_LIBCONTAINER_SYNCPIPE=2", "_LIBCONTAINER_INITPIPE=0")
		},
		"failing poststop hook": func(s *oci.Spec) { s.Hooks = &specs.Hooks{Poststop: hook("exit 3")} },
		"300 mounts": func(s *oci.Spec) {
			for i := range 300 {
				s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: fmt.Sprintf("/m/%d", i)})
			}
		},
		"mount twice": func(s *oci.Spec) {
			m := specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/mnt", Options: []string{"ro", "rw", ""}}
			s.Mounts = append(s.Mounts, m, m)
		},
	} {
		s.sub(t, name, func() {
			if name == "failing poststop hook" && !detached() {
				skip(s.t, "the runtime does not delete such a container the first time")
			}
			c := s.run([]string{"/payload", "exit", "7"}, editing(edit), v.beside())
			want(s.t, "exit status", c.finish(), 7)
			v.unharmed()
		})
	}
	v.stop()
}
