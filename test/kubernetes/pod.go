package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// podOption changes a pod before it is created.
type podOption func(*corev1.Pod)

// idle is a container's command that runs until SIGTERM.
var idle = []string{"/payload", "wait"}

// newPod is a pod on the node with one idle container, "main".
func newPod(name string, options ...podOption) *corev1.Pod {
	class, no, grace := "numa", false, int64(5)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			NodeName: nodeName, RuntimeClassName: &class, AutomountServiceAccountToken: &no,
			DNSPolicy: corev1.DNSDefault, TerminationGracePeriodSeconds: &grace, EnableServiceLinks: &no,
			Containers: []corev1.Container{container("main", idle...)},
		},
	}
	for _, o := range options {
		o(p)
	}
	return p
}

func container(name string, command ...string) corev1.Container {
	return corev1.Container{
		Name: name, Image: kubelet.BaseImage, ImagePullPolicy: corev1.PullNever, Command: command,
	}
}

// shell is a container that runs a script.
func shell(name, script string) corev1.Container { return container(name, "/bin/sh", "-c", script) }

func containers(c ...corev1.Container) podOption {
	return func(p *corev1.Pod) { p.Spec.Containers = c }
}

func initContainers(c ...corev1.Container) podOption {
	return func(p *corev1.Pod) { p.Spec.InitContainers = c }
}

func annotation(key, value string) podOption {
	return func(p *corev1.Pod) { p.Annotations["numa.containerd.io/"+key] = value }
}

// userNamespace is `hostUsers: false`.
func userNamespace(p *corev1.Pod) {
	no := false
	p.Spec.HostUsers = &no
}

func class(name string) podOption { return func(p *corev1.Pod) { p.Spec.RuntimeClassName = &name } }

func restart(policy corev1.RestartPolicy) podOption {
	return func(p *corev1.Pod) { p.Spec.RestartPolicy = policy }
}

func volume(name string, source corev1.VolumeSource) podOption {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	}
}

// requests and limits of the first container: "" leaves a value out.
func requests(cpu, memory string) podOption {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = quantities(cpu, memory) }
}

func limits(cpu, memory string) podOption {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Limits = quantities(cpu, memory) }
}

func quantities(cpu, memory string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for name, value := range map[corev1.ResourceName]string{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory} {
		if value != "" {
			list[name] = resource.MustParse(value)
		}
	}
	return list
}

// await waits, bounded, until the pod is as wanted, and returns it.
func (s *suite) await(ctx context.Context, name, what string, wanted func(*corev1.Pod) bool) (*corev1.Pod, error) {
	var pod *corev1.Pod
	var err error
	if rig.Eventually(bound, func() bool {
		pod = new(corev1.Pod)
		err = s.cluster.API.Get(ctx, podPath(name), pod)
		return err == nil && wanted(pod)
	}) {
		return pod, nil
	}
	events, _ := s.cluster.API.events(ctx, name)
	return nil, fmt.Errorf("pod %s: never %s: %v\nstatus: %+v\nevents: %s", name, what, err, pod.Status, strings.Join(events, "\n"))
}

func running(p *corev1.Pod) bool {
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Running == nil {
			return false
		}
	}
	return p.Status.Phase == corev1.PodRunning
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// awaitGone waits, bounded, until the pod is no more.
func (s *suite) awaitGone(ctx context.Context, name string) error {
	var err error
	if rig.Eventually(bound, func() bool {
		var answer *apiError
		err = s.cluster.API.Get(ctx, podPath(name), new(corev1.Pod))
		return errors.As(err, &answer) && answer.status == http.StatusNotFound
	}) {
		return nil
	}
	return fmt.Errorf("pod %s does not go: %w", name, err)
}

// status is the state of a container of the pod.
func status(p *corev1.Pod, name string) corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for _, c := range list {
			if c.Name == name {
				return c
			}
		}
	}
	return corev1.ContainerStatus{}
}

// output is what a container has written to its log.
func (s *suite) output(p *corev1.Pod, container string) (string, error) {
	pattern := filepath.Join(s.kubelet.logs(), "*_"+string(p.UID), container, "*.log")
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("no log %s: %w", pattern, err)
	}
	var text strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(data)) {
			// CRI's format: time, stream, tag, text.
			if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
				text.WriteString(fields[3])
			}
		}
	}
	return text.String(), nil
}
