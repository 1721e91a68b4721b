package kubernetes

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"containerd-shim-numa-v1/test/rig"
)

// bundle is the directory of a pod's container in containerd's state.
func (s *scene) bundle(p *corev1.Pod, container string) string {
	id := strings.TrimPrefix(status(p, container).ContainerID, "containerd://")
	return filepath.Join(s.node.Daemon.State(), "io.containerd.runtime.v2.task", "k8s.io", id)
}

// TestPolicies runs a pod for each policy and reads back, from the container,
// where it is.
func TestPolicies(t *testing.T) {
	for name, c := range map[string]struct {
		options []podOption
		nodes   string // of CONTAINERD_NUMA_NODES
	}{
		"best-effort":      {nil, "0"},
		"single-numa-node": {[]podOption{annotation("policy", "single-numa-node")}, "0"},
		"restricted":       {[]podOption{annotation("policy", "restricted"), limits("1", "50Mi")}, "0"},
		"dedicated":        {[]podOption{annotation("cpu-policy", "dedicated"), limits("1", "50Mi")}, "0"},
		"none":             {[]podOption{annotation("policy", "none")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := act(t)
			s.allowDedicated()
			main := shell("main", `echo "$CONTAINERD_NUMA_NODES"; echo "$CONTAINERD_NUMA_CPUS"; grep Cpus_allowed_list /proc/self/status; exec /payload wait`)
			p := s.run(append([]podOption{containers(main)}, c.options...)...)
			var text string
			if !rig.Eventually(bound, func() bool { text = s.log(p, "main"); return strings.Count(text, "\n") > 3 }) {
				t.Fatalf("the container printed %q", text)
			}
			lines := strings.Split(text, "\n")
			want(t, "nodes", lines[0], c.nodes)
			if allowed := strings.TrimSpace(strings.TrimPrefix(lines[2], "Cpus_allowed_list:")); c.nodes != "" {
				want(t, "CPUs", allowed, lines[1])
			}
			data, err := os.ReadFile(filepath.Join(s.bundle(p, "main"), "placement.json"))
			s.must(err)
			if !json.Valid(data) {
				t.Errorf("placement.json: %s", data)
			}
		})
	}
}

// TestRefusal asks for more CPUs on one node than the machine has: the pod
// does not run, and its events say why.
func TestRefusal(t *testing.T) {
	s := act(t)
	s.allowDedicated()
	name := s.create(annotation("policy", "single-numa-node"), annotation("cpu-policy", "dedicated"),
		func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Limits = quantities("", "50Mi") },
		limits("100", "50Mi"), requests("10m", "50Mi"))
	var events []string
	s.awaitPod(name, "refused", func(*corev1.Pod) bool {
		var err error
		events, err = s.cluster.API.events(s.ctx, name)
		return err == nil && strings.Contains(strings.Join(events, "\n"), "placement refused")
	})
}
