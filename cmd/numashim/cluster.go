package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// accountDir is where kubelet puts a pod's service account
// (kubernetes.io/docs, "Accessing the Kubernetes API from a Pod").
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

const (
	requestTimeout = 30 * time.Second
	// maxAnswer bounds an answer, in bytes; a Node with many images has some
	// 100 kB.
	maxAnswer = 8 << 20
)

// cluster is the API server as a pod sees it. Two requests do not make a
// client library worth its weight.
type cluster struct {
	base   string
	client *http.Client
	// account is the directory of the service account. Its token is read for
	// every request, since kubelet renews it.
	account string
}

// inCluster is the cluster whose pod this process is in.
func inCluster() (*cluster, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("not in a pod: KUBERNETES_SERVICE_HOST and _PORT are not set")
	}
	return newCluster("https://"+net.JoinHostPort(host, port), accountDir)
}

func newCluster(base, account string) (*cluster, error) {
	authority := filepath.Join(account, "ca.crt")
	pem, err := os.ReadFile(authority)
	if err != nil {
		return nil, fmt.Errorf("cluster's certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("cluster's certificate authority %s holds no certificate", authority)
	}
	return &cluster{
		base: base, account: account,
		client: &http.Client{
			Timeout:   requestTimeout,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
		},
	}, nil
}

func (c *cluster) getNode(ctx context.Context, name string, n *node) error {
	data, err := c.do(ctx, http.MethodGet, name, "", nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, n)
}

func (c *cluster) patchNode(ctx context.Context, name string, patch []byte) error {
	_, err := c.do(ctx, http.MethodPatch, name, "application/merge-patch+json", patch)
	return err
}

func (c *cluster) do(ctx context.Context, method, node, contentType string, body []byte) ([]byte, error) {
	token, err := os.ReadFile(filepath.Join(c.account, "token"))
	if err != nil {
		return nil, fmt.Errorf("service account: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1/nodes/"+url.PathEscape(node), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, message(data))
	}
	return data, nil
}

// message is the reason in an answer that is a Status object.
func message(data []byte) string {
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &status) != nil || status.Message == "" {
		return "no reason given"
	}
	return status.Message
}
