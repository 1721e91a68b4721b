package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// Kubelet is the kubelet process of the node.
type Kubelet struct {
	node     *kubelet.Node
	api      *API
	binaries string
	process  *process
}

// Dirs of kubelet, in the run's own /var/lib and directory.
func (k *Kubelet) root() string { return "/var/lib/kubelet" }
func (k *Kubelet) logs() string { return filepath.Join(k.node.Dir, "pod-logs") }
func (k *Kubelet) dir() string  { return k.node.Dir }

// cgroup is the cgroup below which kubelet makes kubepods.
func (k *Kubelet) cgroup() string { return "/" + k.node.Name() }

// Static are the settings of kubelet's own resource managers.
var static = map[string]any{
	"cpuManagerPolicy":      "static",
	"memoryManagerPolicy":   "Static",
	"topologyManagerPolicy": "best-effort",
	"reservedSystemCPUs":    "0",
	"reservedMemory":        []any{map[string]any{"numaNode": 0, "limits": map[string]string{"memory": "150Mi"}}},
	"systemReserved":        map[string]string{"memory": "100Mi"},
}

// configure writes kubelet's configuration: the defaults, as far as they work
// without systemd, swap settings and other nodes, and extra.
func (k *Kubelet) configure(extra map[string]any) (string, error) {
	config := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": nodeAddress, "port": kubeletPort, "healthzPort": 0,
		"authentication":                map[string]any{"anonymous": map[string]any{"enabled": true}, "webhook": map[string]any{"enabled": false}},
		"authorization":                 map[string]any{"mode": "AlwaysAllow"},
		"cgroupDriver":                  "cgroupfs",
		"cgroupRoot":                    k.cgroup(),
		"failCgroupV1":                  false,
		"failSwapOn":                    false,
		"containerRuntimeEndpoint":      "unix://" + k.node.Daemon.Address(),
		"evictionHard":                  map[string]string{"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"localStorageCapacityIsolation": false,
		"resolvConf":                    "",
		"podLogsDir":                    k.logs(),
		"makeIPTablesUtilChains":        false,
		"imageMinimumGCAge":             "24h",
		"syncFrequency":                 "2s",
		"nodeStatusUpdateFrequency":     "2s",
	}
	for key, value := range extra {
		config[key] = value
	}
	data, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	path := filepath.Join(k.dir(), "kubelet.json")
	return path, os.WriteFile(path, data, 0o600)
}

// kubeconfig tells kubelet of the API server.
func (k *Kubelet) kubeconfig() (string, error) {
	config := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{
			"server": "https://" + net.JoinHostPort(nodeAddress, apiPort), "insecure-skip-tls-verify": true}}},
		"users":    []any{map[string]any{"name": "u", "user": map[string]any{"token": adminToken}}},
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c", "user": "u"}}},
	}
	data, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	path := filepath.Join(k.dir(), "kubeconfig")
	return path, os.WriteFile(path, data, 0o600)
}

// Start starts kubelet with further configuration and waits until the node is
// ready.
func (k *Kubelet) Start(ctx context.Context, extra map[string]any) error {
	config, err := k.configure(extra)
	if err != nil {
		return err
	}
	account, err := k.kubeconfig()
	if err != nil {
		return err
	}
	if err := rig.MakeCgroup(k.cgroup()); err != nil {
		return err
	}
	for _, dir := range []string{k.root(), k.logs()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	k.process, err = start(k.dir(), "kubelet", filepath.Join(k.binaries, "kubelet"),
		[]string{"PATH=" + k.node.Path, "HOME=" + k.dir()},
		"--config", config, "--kubeconfig", account, "--root-dir", k.root(), "--cert-dir", filepath.Join(k.dir(), "kubelet-certs"),
		"--hostname-override", nodeName, "--node-ip", nodeAddress, "--v", "2")
	if err != nil {
		return err
	}
	if err := k.awaitReady(ctx); err != nil {
		return errors.Join(fmt.Errorf("%w\n%s", err, k.process.tail()), k.Stop(unix.SIGKILL))
	}
	return nil
}

// Stop ends kubelet. Pods run on.
func (k *Kubelet) Stop(sig unix.Signal) error { return k.process.stop(sig) }

// awaitReady waits, bounded, until the node is ready, and was seen since this
// kubelet began.
func (k *Kubelet) awaitReady(ctx context.Context) error {
	var node corev1.Node
	var before corev1.Node
	// The heartbeat of a kubelet before this one is not this one's.
	_ = k.api.Get(ctx, nodesPath+"/"+nodeName, &before)
	var err error
	if rig.Eventually(bound, func() bool {
		node = corev1.Node{}
		if err = k.api.Get(ctx, nodesPath+"/"+nodeName, &node); err != nil {
			return false
		}
		c := condition(node)
		return c.Status == corev1.ConditionTrue && c.LastHeartbeatTime.After(condition(before).LastHeartbeatTime.Time)
	}) {
		return nil
	}
	return fmt.Errorf("the node does not become ready: %w: %v", err, condition(node))
}

// condition is the node's condition "Ready".
func condition(n corev1.Node) corev1.NodeCondition {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c
		}
	}
	return corev1.NodeCondition{}
}
