package kubernetes

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// API speaks to the API server.
type API struct {
	base, token string
	client      *http.Client
}

func newAPI(base string) *API {
	return &API{base: base, token: adminToken, client: &http.Client{
		// The server's certificate is its own; nobody else is in this network.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}}
}

// as is the API for another account.
func (a *API) as(token string) *API { return &API{base: a.base, token: token, client: a.client} }

// apiError is an answer that is not a success.
type apiError struct {
	status  int
	message string
}

func (e *apiError) Error() string { return fmt.Sprintf("%d: %s", e.status, e.message) }

func (a *API) do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		var status metav1.Status
		if json.Unmarshal(data, &status) != nil || status.Message == "" {
			status.Message = string(data)
		}
		return nil, fmt.Errorf("%s %s: %w", method, path, &apiError{resp.StatusCode, status.Message})
	}
	return data, nil
}

// send sends an object, or nothing, and decodes the answer into answer unless
// that is nil.
func (a *API) send(ctx context.Context, method, path, contentType string, object, answer any) error {
	var body []byte
	if object != nil {
		var err error
		if body, err = json.Marshal(object); err != nil {
			return err
		}
	}
	data, err := a.do(ctx, method, path, contentType, body)
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(data, answer)
}

// Create makes an object in the collection at path; answer may be nil.
func (a *API) Create(ctx context.Context, path string, object, answer any) error {
	return a.send(ctx, http.MethodPost, path, "application/json", object, answer)
}

// Get reads an object.
func (a *API) Get(ctx context.Context, path string, answer any) error {
	return a.send(ctx, http.MethodGet, path, "", nil, answer)
}

// Delete deletes an object; grace is in seconds.
func (a *API) Delete(ctx context.Context, path string, grace int64) error {
	return a.send(ctx, http.MethodDelete, path, "application/json", metav1.DeleteOptions{GracePeriodSeconds: &grace}, nil)
}

// Merge applies a JSON merge patch.
func (a *API) Merge(ctx context.Context, path string, patch any) error {
	return a.send(ctx, http.MethodPatch, path, "application/merge-patch+json", patch, nil)
}

// Strategic applies a strategic merge patch.
func (a *API) Strategic(ctx context.Context, path string, patch any) error {
	return a.send(ctx, http.MethodPatch, path, "application/strategic-merge-patch+json", patch, nil)
}

// Paths of collections.
const (
	podsPath           = "/api/v1/namespaces/default/pods"
	nodesPath          = "/api/v1/nodes"
	namespacesPath     = "/api/v1/namespaces"
	runtimeClassesPath = "/apis/node.k8s.io/v1/runtimeclasses"
)

func podPath(name string) string { return podsPath + "/" + name }

// events are the messages of the events about a pod.
func (a *API) events(ctx context.Context, pod string) ([]string, error) {
	var list corev1.EventList
	if err := a.Get(ctx, "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name="+pod, &list); err != nil {
		return nil, err
	}
	var messages []string
	for _, e := range list.Items {
		messages = append(messages, e.Reason+": "+e.Message)
	}
	return messages, nil
}
