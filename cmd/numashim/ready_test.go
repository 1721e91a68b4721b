package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// apiServer holds one Node and applies merge patches to its labels.
type apiServer struct {
	mu       sync.Mutex
	labels   map[string]string
	handlers []string
	patches  int
	forbid   bool
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer secret" || r.URL.Path != "/api/v1/nodes/n1" || s.forbid {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"kind":"Status","message":"nodes \"n1\" is forbidden"}`)
		return
	}
	if r.Method == http.MethodPatch {
		var p struct {
			Metadata struct {
				Labels map[string]*string `json:"labels"`
			} `json:"metadata"`
		}
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil || r.Header.Get("Content-Type") != "application/merge-patch+json" {
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		s.patches++
		for k, v := range p.Metadata.Labels {
			if v == nil {
				delete(s.labels, k)
			} else {
				s.labels[k] = *v
			}
		}
	}
	var n node
	n.Metadata.Labels = s.labels
	for _, h := range s.handlers {
		n.Status.RuntimeHandlers = append(n.Status.RuntimeHandlers, struct {
			Name string `json:"name"`
		}{h})
	}
	json.NewEncoder(w).Encode(n)
}

// serve returns the API server as a pod's cluster.
func serve(t *testing.T, s *apiServer) *cluster {
	t.Helper()
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	account := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, data := range map[string][]byte{"ca.crt": ca, "token": []byte("secret\n")} {
		if err := os.WriteFile(filepath.Join(account, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := newCluster(server.URL, account)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.CloseIdleConnections)
	return c
}

func TestKeepFollowsTheHandler(t *testing.T) {
	s := &apiServer{labels: map[string]string{"other": "x"}}
	c := serve(t, s)
	for _, step := range []struct {
		handlers []string
		label    string
		patches  int
	}{
		{[]string{"runc"}, "", 0},
		{[]string{"runc", "numa"}, "true", 1},
		{[]string{"runc", "numa"}, "true", 1},
		{nil, "", 2},
	} {
		s.handlers = step.handlers
		var out strings.Builder
		if err := keep(context.Background(), c, "n1", "numa", &out); err != nil {
			t.Fatal(err)
		}
		if s.labels[readyLabel] != step.label || s.patches != step.patches || s.labels["other"] != "x" {
			t.Errorf("handlers %q: labels %v after %d patches; said %q", step.handlers, s.labels, s.patches, out.String())
		}
	}
}

func TestKeepMendsAnotherValue(t *testing.T) {
	s := &apiServer{labels: map[string]string{readyLabel: "false"}, handlers: []string{"numa"}}
	if err := keep(context.Background(), serve(t, s), "n1", "numa", io.Discard); err != nil || s.labels[readyLabel] != "true" {
		t.Errorf("labels %v, error %v", s.labels, err)
	}
}

func TestKeepTellsTheServersReason(t *testing.T) {
	c := serve(t, &apiServer{forbid: true})
	err := keep(context.Background(), c, "n1", "numa", io.Discard)
	if err == nil || !strings.Contains(err.Error(), `read node n1: 403 Forbidden: nodes "n1" is forbidden`) {
		t.Errorf("error %v", err)
	}
}

func TestClusterNeedsItsAuthority(t *testing.T) {
	dir := t.TempDir()
	if _, err := newCluster("https://127.0.0.1", dir); err == nil {
		t.Error("no ca.crt: no error")
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newCluster("https://127.0.0.1", dir); err == nil {
		t.Error("empty ca.crt: no error")
	}
}
