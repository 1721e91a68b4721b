package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/rig"
)

// Pod is a pod sandbox and what kubelet keeps for it.
type Pod struct {
	ID         string // the sandbox's, which is the group id of its shim
	UID        string
	Cgroup     string // absolute path, in every hierarchy
	Config     *runtimeapi.PodSandboxConfig
	Containers []*Container

	node    *Node
	handler string
}

// PodOption changes a pod's configuration before it is run.
type PodOption func(*Pod)

// WithHandler runs the pod by another runtime handler than "numa".
func WithHandler(name string) PodOption { return func(p *Pod) { p.handler = name } }

// HostNetwork leaves the pod in the node's network namespace, as `hostNetwork:
// true` does.
func HostNetwork(p *Pod) {
	p.namespaces().Network = runtimeapi.NamespaceMode_NODE
	p.Config.Hostname, p.Config.DnsConfig = "", nil
}

// SharedPID is `shareProcessNamespace: true`.
func SharedPID(p *Pod) { p.namespaces().Pid = runtimeapi.NamespaceMode_POD }

// HostPID is `hostPID: true`.
func HostPID(p *Pod) { p.namespaces().Pid = runtimeapi.NamespaceMode_NODE }

// HostIPC is `hostIPC: true`.
func HostIPC(p *Pod) { p.namespaces().Ipc = runtimeapi.NamespaceMode_NODE }

// UserNamespace is `hostUsers: false`: kubelet gives the pod a range of host
// ids of its own, upwards from host.
func UserNamespace(host uint32) PodOption {
	return func(p *Pod) {
		ids := []*runtimeapi.IDMapping{{HostId: host, ContainerId: 0, Length: rig.Mapped}}
		p.namespaces().UsernsOptions = &runtimeapi.UserNamespace{
			Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids,
		}
	}
}

// Sysctl sets a kernel parameter of the pod's namespaces.
func Sysctl(name, value string) PodOption {
	return func(p *Pod) {
		if p.Config.Linux.Sysctls == nil {
			p.Config.Linux.Sysctls = map[string]string{}
		}
		p.Config.Linux.Sysctls[name] = value
	}
}

// Privileged is a pod that may have privileged containers.
func Privileged(p *Pod) { p.Config.Linux.SecurityContext.Privileged = true }

func (p *Pod) namespaces() *runtimeapi.NamespaceOption {
	return p.Config.Linux.SecurityContext.NamespaceOptions
}

// userns is the pod's user namespace, nil for the node's.
func (p *Pod) userns() *runtimeapi.UserNamespace { return p.namespaces().UsernsOptions }

// newPod is a burstable pod as kubelet configures one that asks for nothing.
func (n *Node) newPod(name string) *Pod {
	uid := fmt.Sprintf("%08x-0000-4000-8000-%012x", os.Getpid(), n.pods.Add(1))
	p := &Pod{
		UID: uid, node: n, handler: "numa",
		Cgroup: "/" + filepath.Join(n.Name(), "kubepods", "burstable", "pod"+uid),
	}
	p.Config = &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Uid: uid, Namespace: "default"},
		Hostname: name,
		DnsConfig: &runtimeapi.DNSConfig{
			Servers: []string{"10.96.0.10"}, Searches: []string{"default.svc.cluster.local"}, Options: []string{"ndots:5"},
		},
		LogDirectory: filepath.Join(n.Dir, "logs", "default_"+name+"_"+uid),
		Labels: map[string]string{
			"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": uid,
		},
		Annotations: map[string]string{"kubernetes.io/config.source": "api"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: p.Cgroup,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
				Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
			Overhead:  &runtimeapi.LinuxContainerResources{},
			Resources: &runtimeapi.LinuxContainerResources{CpuPeriod: cpuPeriod, CpuShares: 2},
		},
	}
	return p
}

// cpuPeriod is kubelet's, in microseconds.
const cpuPeriod = 100_000

// Dir is the pod's directory on the node, with its volumes. Anybody may walk
// through it, as with kubelet's.
func (p *Pod) Dir() string { return filepath.Join(p.node.Dir, "pods", p.UID) }

// RunPod makes the pod's cgroup and directories and runs its sandbox. At an
// error nothing is left of what it made itself.
func (n *Node) RunPod(ctx context.Context, name string, options ...PodOption) (p *Pod, err error) {
	p = n.newPod(name)
	for _, o := range options {
		o(p)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("run pod %s: %w", name, errors.Join(err, p.discard()))
		}
	}()
	for _, dir := range []string{p.Dir(), p.Config.LogDirectory} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := rig.MakeCgroup(p.Cgroup); err != nil {
		return nil, err
	}
	r, err := n.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.Config, RuntimeHandler: p.handler})
	if err != nil {
		return nil, err
	}
	p.ID = r.PodSandboxId
	return p, nil
}

// Stop stops the sandbox and all that runs in it, without grace.
func (p *Pod) Stop(ctx context.Context) error {
	_, err := p.node.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.ID})
	if err != nil {
		return fmt.Errorf("stop pod %s: %w", p.Config.Metadata.Name, err)
	}
	return nil
}

// Remove stops and removes the pod with its containers, its cgroups and its
// directories. Repeated, it does nothing.
func (p *Pod) Remove(ctx context.Context) error {
	if p.ID == "" {
		return nil
	}
	if err := p.Stop(ctx); err != nil {
		return err
	}
	_, err := p.node.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.ID})
	if err != nil {
		return fmt.Errorf("remove pod %s: %w", p.Config.Metadata.Name, err)
	}
	p.ID = ""
	return p.discard()
}

// discard removes what kubelet has made for the pod. An occupied cgroup is an
// error: the runtime has left something in it.
func (p *Pod) discard() error {
	return errors.Join(rig.RemoveCgroup(p.Cgroup), os.RemoveAll(p.Dir()), os.RemoveAll(p.Config.LogDirectory))
}

// Status is what CRI says of the sandbox.
func (p *Pod) Status(ctx context.Context) (*runtimeapi.PodSandboxStatus, error) {
	r, err := p.node.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.ID})
	return r.GetStatus(), err
}

// ContainerNames are the containers that CRI has in the pod, sorted.
func (p *Pod) ContainerNames(ctx context.Context) ([]string, error) {
	r, err := p.node.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{
		Filter: &runtimeapi.ContainerFilter{PodSandboxId: p.ID},
	})
	var names []string
	for _, c := range r.GetContainers() {
		names = append(names, c.Metadata.Name)
	}
	slices.Sort(names)
	return names, err
}
