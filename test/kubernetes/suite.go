package kubernetes

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// suite is what all tests share: one node of one cluster.
type suite struct {
	cluster *Cluster
	node    *kubelet.Node
	kubelet *Kubelet
	restore func() error

	deployed bool // the deployment's objects are there
}

// daemonCgroup is where containerd and the shims are, whose CPU is counted.
func daemonCgroup(m *rig.Machine) string { return m.Name() + "/daemon" }

// begin starts everything.
func begin(ctx context.Context, shimDir string, layers int, debug bool) (s *suite, err error) {
	s = new(suite)
	binaries, err := rig.BuildKubernetes(ctx)
	if err != nil {
		return nil, err
	}
	machine, err := kubelet.Enter(ctx, "2")
	if err != nil {
		return nil, err
	}
	dir, err := rig.RequireShim(shimDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.end())
		}
	}()
	if s.restore, err = keepKernelSettings(); err != nil {
		return s, err
	}
	if err := writeSettings(machine.Dir); err != nil {
		return s, err
	}
	registrations, err := kubelet.Registrations(machine, dir)
	if err != nil {
		return s, err
	}
	s.node, err = kubelet.Start(ctx, kubelet.Config{Machine: machine, ShimDir: dir, Layers: layers, Debug: debug, Cgroup: daemonCgroup(machine),
		Handlers: map[string]kubelet.Registration{"numa": registrations["numa"], "runc": registrations["reference"]}})
	if err != nil {
		return s, err
	}
	if s.cluster, err = StartCluster(ctx, machine.Dir, binaries); err != nil {
		return s, err
	}
	if err := s.objects(ctx); err != nil {
		return s, err
	}
	s.kubelet = &Kubelet{node: s.node, api: s.cluster.API, binaries: binaries}
	return s, s.kubelet.Start(ctx, nil)
}

// objects makes what controllers would: the RuntimeClasses and the service
// account of pods.
func (s *suite) objects(ctx context.Context) error {
	api := s.cluster.API
	for _, handler := range []string{"numa", "runc"} {
		c := nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: handler}, Handler: handler}
		if err := api.Create(ctx, runtimeClassesPath, c, nil); err != nil {
			return err
		}
	}
	account := corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	err := api.Create(ctx, namespacesPath+"/default/serviceaccounts", account, nil)
	var answer *apiError
	if errors.As(err, &answer) && answer.status == 409 {
		return nil
	}
	return err
}

// warmUp runs a pod of each class, so that what the first one makes and none
// removes (kubelet's cgroups, directories of sockets) is in every census.
func (s *suite) warmUp(ctx context.Context) error {
	for name, options := range map[string][]podOption{
		"best-effort": {userNamespace}, "burstable": {requests("10m", "")}, "guaranteed": {limits("10m", "50Mi")},
	} {
		p := newPod("warm-up-"+name, options...)
		if err := s.cluster.API.Create(ctx, podsPath, p, nil); err != nil {
			return err
		}
		if _, err := s.await(ctx, p.Name, "running", running); err != nil {
			return err
		}
		if err := s.cluster.API.Delete(ctx, podPath(p.Name), 1); err != nil {
			return err
		}
		if err := s.awaitGone(ctx, p.Name); err != nil {
			return err
		}
	}
	return s.collect(ctx)
}

// collect removes the sandboxes of pods that are no more, as kubelet does once
// a minute, and waits until there is none.
func (s *suite) collect(ctx context.Context) error {
	var err error
	if rig.Eventually(bound, func() bool {
		var list *runtimeapi.ListPodSandboxResponse
		if list, err = s.node.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{}); err != nil {
			return false
		}
		for _, sandbox := range list.Items {
			if sandbox.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
				continue
			}
			if _, err = s.node.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox.Id}); err != nil {
				return false
			}
		}
		return len(list.Items) == 0
	}) {
		return nil
	}
	return fmt.Errorf("sandboxes are left: %w", err)
}

// end stops everything. Whatever pods are left go with the PID namespace.
func (s *suite) end() (err error) {
	if s.kubelet != nil {
		err = errors.Join(err, s.kubelet.Stop(unix.SIGKILL))
	}
	if s.cluster != nil {
		err = errors.Join(err, s.cluster.Close())
	}
	if s.node != nil {
		err = errors.Join(err, s.node.Close())
	}
	if s.restore != nil {
		err = errors.Join(err, s.restore())
	}
	if err != nil {
		return fmt.Errorf("end the cluster: %w", err)
	}
	return nil
}
