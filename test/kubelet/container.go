package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/rig"
)

// Container is one container of a pod.
type Container struct {
	ID     string
	Config *runtimeapi.ContainerConfig
	Pod    *Pod
}

// ContainerOption changes a container's configuration before it is created.
type ContainerOption func(*Container)

// Image runs another image than BaseImage.
func Image(name string) ContainerOption {
	return func(c *Container) { c.Config.Image.Image = name }
}

// Attempt numbers the restarts of a container of the same name.
func Attempt(n uint32) ContainerOption {
	return func(c *Container) { c.Config.Metadata.Attempt = n }
}

// Mount adds a mount. Kubelet maps the ids of the volumes of a pod in a user
// namespace, so that they are not shifted inside.
func Mount(m *runtimeapi.Mount) ContainerOption {
	return func(c *Container) {
		if u := c.Pod.userns(); u != nil && m.Image == nil {
			m.UidMappings, m.GidMappings = u.Uids, u.Gids
		}
		c.Config.Mounts = append(c.Config.Mounts, m)
	}
}

// Security changes the container's security context.
func Security(change func(*runtimeapi.LinuxContainerSecurityContext)) ContainerOption {
	return func(c *Container) { change(c.Config.Linux.SecurityContext) }
}

// Resources changes the container's resources.
func Resources(change func(*runtimeapi.LinuxContainerResources)) ContainerOption {
	return func(c *Container) { change(c.Config.Linux.Resources) }
}

// WithConfig changes anything else.
func WithConfig(change func(*runtimeapi.ContainerConfig)) ContainerOption {
	return func(c *Container) { change(c.Config) }
}

// DefaultMaskedPaths and DefaultReadonlyPaths are what kubelet sends for
// `procMount: Default`.
var (
	DefaultMaskedPaths = []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
	DefaultReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// newContainer is a container as kubelet configures one that asks for
// nothing: its namespaces are the pod's, /etc/hosts and the termination log
// are files of the pod's directory.
func (p *Pod) newContainer(name string, command []string) *Container {
	c := &Container{Pod: p}
	c.Config = &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: BaseImage},
		Command:  command,
		Envs:     []*runtimeapi.KeyValue{{Key: "KUBERNETES_SERVICE_HOST", Value: []byte("10.96.0.1")}},
		Labels: map[string]string{
			"io.kubernetes.container.name": name, "io.kubernetes.pod.name": p.Config.Metadata.Name,
			"io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": p.UID,
		},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{CpuPeriod: cpuPeriod, CpuShares: 2, OomScoreAdj: 1000},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: p.namespaces(),
				MaskedPaths:      DefaultMaskedPaths, ReadonlyPaths: DefaultReadonlyPaths,
				Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined},
			},
		},
	}
	return c
}

// Create makes the container without starting it.
func (p *Pod) Create(ctx context.Context, name string, command []string, options ...ContainerOption) (*Container, error) {
	c := p.newContainer(name, command)
	for path, mode := range map[string]os.FileMode{"/etc/hosts": 0o644, "/dev/termination-log": 0o666} {
		file := filepath.Join(p.Dir(), name+"-"+filepath.Base(path))
		if err := errors.Join(os.WriteFile(file, nil, mode), os.Chmod(file, mode)); err != nil {
			return nil, err
		}
		Mount(&runtimeapi.Mount{HostPath: file, ContainerPath: path})(c)
	}
	for _, o := range options {
		o(c)
	}
	attempt := c.Config.Metadata.Attempt
	c.Config.LogPath = filepath.Join(name, fmt.Sprintf("%d.log", attempt))
	if err := os.MkdirAll(filepath.Dir(c.LogPath()), 0o755); err != nil {
		return nil, err
	}
	r, err := p.node.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.ID, Config: c.Config, SandboxConfig: p.Config,
	})
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", name, err)
	}
	c.ID = r.ContainerId
	p.Containers = append(p.Containers, c)
	return c, nil
}

// Start starts the container.
func (c *Container) Start(ctx context.Context) error {
	_, err := c.Pod.node.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: c.ID})
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.Config.Metadata.Name, err)
	}
	return nil
}

// Run creates the container and starts it.
func (p *Pod) Run(ctx context.Context, name string, command []string, options ...ContainerOption) (*Container, error) {
	c, err := p.Create(ctx, name, command, options...)
	if err != nil {
		return nil, err
	}
	return c, c.Start(ctx)
}

// Stop stops the container: its stop signal, then KILL after grace seconds.
func (c *Container) Stop(ctx context.Context, grace int64) error {
	_, err := c.Pod.node.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: c.ID, Timeout: grace})
	return err
}

// Remove removes the container, which has ended.
func (c *Container) Remove(ctx context.Context) error {
	_, err := c.Pod.node.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID})
	return err
}

// Status is what CRI says of the container.
func (c *Container) Status(ctx context.Context) (*runtimeapi.ContainerStatus, error) {
	r, err := c.Pod.node.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.ID})
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", c.Config.Metadata.Name, err)
	}
	return r.Status, nil
}

// Pid is the host's id of the container's init, from CRI's verbose status.
func (c *Container) Pid(ctx context.Context) (int, error) {
	r, err := c.Pod.node.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.ID, Verbose: true})
	if err != nil {
		return 0, err
	}
	var info struct {
		Pid int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(r.Info["info"]), &info); err != nil {
		return 0, fmt.Errorf("info of %s: %w", c.Config.Metadata.Name, err)
	}
	return info.Pid, nil
}

// AwaitExit waits, bounded, until CRI says that the container has exited.
func (c *Container) AwaitExit(ctx context.Context) (*runtimeapi.ContainerStatus, error) {
	var status *runtimeapi.ContainerStatus
	var err error
	if rig.Eventually(bound, func() bool {
		status, err = c.Status(ctx)
		return err == nil && status.State == runtimeapi.ContainerState_CONTAINER_EXITED
	}) {
		return status, nil
	}
	return nil, fmt.Errorf("%s does not end: %v: %w", c.Config.Metadata.Name, status, err)
}

// ExecResult is what a command in a container printed and how it ended.
type ExecResult struct {
	Stdout, Stderr string
	Code           int32
}

// Exec runs a command in the container to its end, within timeout seconds (0:
// without a limit).
func (c *Container) Exec(ctx context.Context, timeout int64, command ...string) (ExecResult, error) {
	r, err := c.Pod.node.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c.ID, Cmd: command, Timeout: timeout})
	if err != nil {
		return ExecResult{}, fmt.Errorf("exec %q in %s: %w", command, c.Config.Metadata.Name, err)
	}
	return ExecResult{string(r.Stdout), string(r.Stderr), r.ExitCode}, nil
}

// LogPath is where containerd writes the container's output.
func (c *Container) LogPath() string {
	return filepath.Join(c.Pod.Config.LogDirectory, c.Config.LogPath)
}

// Log is what the log file at path has of one stream, "stdout" or "stderr".
// A line of it is "time stream P|F content", P where the line goes on in the
// next (Kubernetes' CRI log format).
func Log(path, stream string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) != 4 || (f[2] != "F" && f[2] != "P") {
			return "", fmt.Errorf("log %s has the line %q", path, line)
		}
		if f[1] != stream {
			continue
		}
		out.WriteString(f[3])
		if f[2] == "F" {
			out.WriteByte('\n')
		}
	}
	return out.String(), nil
}

// AwaitLog waits, bounded, until the container's standard output has part.
func (c *Container) AwaitLog(part string) error {
	var log string
	var err error
	if rig.Eventually(bound, func() bool {
		log, err = Log(c.LogPath(), "stdout")
		return strings.Contains(log, part)
	}) {
		return nil
	}
	return fmt.Errorf("%s has not printed %q but %q: %w", c.Config.Metadata.Name, part, log, err)
}
