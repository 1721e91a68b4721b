package repo

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// kinds are the Kubernetes types that the deployment's files may hold.
var kinds = map[string]func() any{
	"v1/Namespace":                func() any { return new(corev1.Namespace) },
	"v1/Pod":                      func() any { return new(corev1.Pod) },
	"v1/ServiceAccount":           func() any { return new(corev1.ServiceAccount) },
	"apps/v1/DaemonSet":           func() any { return new(appsv1.DaemonSet) },
	"node.k8s.io/v1/RuntimeClass": func() any { return new(nodev1.RuntimeClass) },
	"rbac.authorization.k8s.io/v1/ClusterRole":                         func() any { return new(rbacv1.ClusterRole) },
	"rbac.authorization.k8s.io/v1/ClusterRoleBinding":                  func() any { return new(rbacv1.ClusterRoleBinding) },
	"admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy":        func() any { return new(admissionv1.ValidatingAdmissionPolicy) },
	"admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding": func() any { return new(admissionv1.ValidatingAdmissionPolicyBinding) },
	"kustomize.config.k8s.io/v1beta1/Kustomization":                    func() any { return new(kustomization) },
}

// kustomization is the part of kustomize's type that is used here.
type kustomization struct {
	metav1.TypeMeta `json:",inline"`
	Namespace       string   `json:"namespace"`
	Resources       []string `json:"resources"`
	Images          []struct {
		Name    string `json:"name"`
		NewName string `json:"newName"`
		NewTag  string `json:"newTag"`
	} `json:"images"`
}

// deployment decodes each document of the deployment's files, by file.
func deployment(t *testing.T) map[string][]any {
	t.Helper()
	dir := filepath.Join(root, "docs", "deploy")
	var files []string
	for _, pattern := range []string{"*.yaml", "pods/*.yaml"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(found), err)
		}
		files = append(files, found...)
	}
	all := map[string][]any{}
	for _, file := range files {
		name, _ := filepath.Rel(dir, file)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			all[name] = append(all[name], decode(t, name, document))
		}
	}
	return all
}

// decode reads one document strictly: a field that its type lacks is an error.
func decode(t *testing.T, name string, document []byte) any {
	t.Helper()
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(document, &meta); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	make, ok := kinds[meta.APIVersion+"/"+meta.Kind]
	if !ok {
		t.Fatalf("%s: unknown type %s/%s", name, meta.APIVersion, meta.Kind)
	}
	object := make()
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return object
}

func TestDeploymentIsWellTyped(t *testing.T) {
	all := deployment(t)
	handlers := 0
	for name, objects := range all {
		for _, o := range objects {
			switch o := o.(type) {
			case *corev1.Pod:
				if o.Spec.RuntimeClassName == nil || *o.Spec.RuntimeClassName != "numa" {
					t.Errorf("%s: not of the RuntimeClass numa", name)
				}
				if want := strings.TrimSuffix(filepath.Base(name), ".yaml"); o.Name != want {
					t.Errorf("%s: pod %s", name, o.Name)
				}
			case *nodev1.RuntimeClass:
				handlers++
				if o.Handler != "numa" || o.Overhead == nil {
					t.Errorf("%s: handler %q, overhead %v", name, o.Handler, o.Overhead)
				}
			}
		}
	}
	if handlers != 1 {
		t.Errorf("%d RuntimeClasses", handlers)
	}
}

func TestKustomizationHasAllButPods(t *testing.T) {
	all := deployment(t)
	var files []string
	for name := range all {
		if name != "kustomization.yaml" && !strings.HasPrefix(name, "pods/") {
			files = append(files, name)
		}
	}
	k := all["kustomization.yaml"][0].(*kustomization)
	have := slices.Sorted(slices.Values(k.Resources))
	if want := slices.Sorted(slices.Values(files)); !slices.Equal(have, want) {
		t.Errorf("lists %q, there are %q", have, want)
	}
}
