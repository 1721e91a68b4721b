package kubernetes

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"containerd-shim-numa-v1/test/rig"
)

// collections are where the objects of the deployment's files go.
var collections = map[string]string{
	"Namespace":                        namespacesPath,
	"ServiceAccount":                   namespacesPath + "/" + deployed + "/serviceaccounts",
	"ClusterRole":                      "/apis/rbac.authorization.k8s.io/v1/clusterroles",
	"ClusterRoleBinding":               "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
	"ValidatingAdmissionPolicy":        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
	"ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
	"DaemonSet":                        "/apis/apps/v1/namespaces/" + deployed + "/daemonsets",
}

// deployed is the deployment's namespace, and the name of its account.
const deployed = "containerd-shim-numa"

// deploy creates what the deployment's files hold, but the RuntimeClass, which
// the suite has made. It stays: without its controller a namespace that is
// deleted does not go.
func (s *scene) deploy() {
	s.t.Helper()
	if s.deployed {
		return
	}
	s.deployed = true
	root, err := rig.ModuleDir()
	s.must(err)
	for _, file := range []string{"namespace", "rbac", "own-node-only", "dedicated-where-allowed", "daemonset"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(root), "docs", "deploy", file+".yaml"))
		s.must(err)
		documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			s.must(err)
			var object map[string]any
			s.must(yaml.Unmarshal(document, &object))
			s.must(s.cluster.API.Create(s.ctx, collections[object["kind"].(string)]+"?fieldValidation=Strict", object, nil))
		}
	}
}

// denied reports whether err is the API server's refusal, for the reason.
func denied(err error, reason string) bool {
	var answer *apiError
	return errors.As(err, &answer) && (answer.status == 403 || answer.status == 422) && strings.Contains(answer.message, reason)
}

// TestDeploymentMayLabelItsNodeOnly uses the DaemonSet's account as its pod
// would: it may set the one label on its own node, and nothing else.
func TestDeploymentMayLabelItsNodeOnly(t *testing.T) {
	s := act(t)
	s.deploy()
	api := s.cluster.API
	other := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "other"}}
	s.must(api.Create(s.ctx, nodesPath, other, nil))
	t.Cleanup(func() { s.must(api.Delete(s.ctx, nodesPath+"/other", 0)) })

	pod := newPod("as-the-daemonset", restart(corev1.RestartPolicyNever))
	pod.Spec.ServiceAccountName = deployed
	pods := namespacesPath + "/" + deployed + "/pods"
	s.must(api.Create(s.ctx, pods, pod, pod))
	t.Cleanup(func() {
		s.must(api.Delete(s.ctx, pods+"/"+pod.Name, 0))
		if !rig.Eventually(bound, func() bool {
			err := api.Get(s.ctx, pods+"/"+pod.Name, pod)
			return err != nil && ignoreNotFound(err) == nil
		}) {
			t.Error("the pod does not go")
		}
	})
	request := authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}}}
	s.must(api.Create(s.ctx, collections["ServiceAccount"]+"/"+deployed+"/token", request, &request))
	account := api.as(request.Status.Token)

	label := func(key string, value any) any {
		return map[string]any{"metadata": map[string]any{"labels": map[string]any{key: value}}}
	}
	const ready = "numa.containerd.io/ready"
	// A policy takes effect a moment after it was made.
	var err error
	if !rig.Eventually(bound, func() bool {
		err = account.Merge(s.ctx, nodesPath+"/other", label(ready, "true"))
		return denied(err, "may only change the node of its pod")
	}) {
		t.Errorf("label of another node: %v", err)
	}
	if err := account.Merge(s.ctx, nodesPath+"/"+nodeName, label("other", "x")); !denied(err, "may only change the label") {
		t.Errorf("another label: %v", err)
	}
	unschedulable := map[string]any{"spec": map[string]any{"unschedulable": true}}
	if err := account.Merge(s.ctx, nodesPath+"/"+nodeName, unschedulable); !denied(err, "may not change a node's spec") {
		t.Errorf("spec of the node: %v", err)
	}
	if err := account.Get(s.ctx, podsPath, nil); !denied(err, "cannot list resource") {
		t.Errorf("list of pods: %v", err)
	}
	s.must(account.Merge(s.ctx, nodesPath+"/"+nodeName, label(ready, "true")))
	s.must(account.Merge(s.ctx, nodesPath+"/"+nodeName, label(ready, nil)))
}

// allowDedicated lets pods ask for dedicated CPUs during the test.
func (s *scene) allowDedicated() {
	s.t.Helper()
	label := func(value any) {
		s.must(s.cluster.API.Merge(s.ctx, namespacesPath+"/default", map[string]any{
			"metadata": map[string]any{"labels": map[string]any{"numa.containerd.io/dedicated": value}}}))
	}
	label("allowed")
	s.t.Cleanup(func() { label(nil) })
	// Admission hears of the label a moment later.
	var err error
	if !rig.Eventually(bound, func() bool {
		err = s.cluster.API.Create(s.ctx, podsPath+"?dryRun=All", newPod("asks", annotation("cpu-policy", "dedicated")), nil)
		return err == nil
	}) {
		s.t.Fatalf("pod in a namespace with the label: %v", err)
	}
}

// TestDeploymentLimitsDedicatedCPUs lets only namespaces with the label ask for
// dedicated CPUs.
func TestDeploymentLimitsDedicatedCPUs(t *testing.T) {
	s := act(t)
	s.deploy()
	api := s.cluster.API
	asks := newPod("asks", annotation("cpu-policy", "dedicated"))
	dry := podsPath + "?dryRun=All"
	var err error
	if !rig.Eventually(bound, func() bool {
		err = api.Create(s.ctx, dry, asks, nil)
		return denied(err, "may not ask for dedicated CPUs")
	}) {
		t.Errorf("pod in a namespace without the label: %v", err)
	}
	s.must(api.Create(s.ctx, dry, newPod("does-not-ask", annotation("policy", "none")), nil))
	s.allowDedicated()
}
