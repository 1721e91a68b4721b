package kubernetes

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/test/rig"
)

// The network namespace's only address that is not of a pod. kubelet refuses
// a loopback address as the node's.
const (
	nodeDevice  = "node0"
	nodeAddress = "10.99.0.1"
	nodeName    = "node"
)

// Ports on nodeAddress, which nobody else has.
const (
	etcdPort     = "2379"
	etcdPeerPort = "2380"
	apiPort      = "6443"
	kubeletPort  = 10250
)

// adminToken names a member of system:masters to the API server, which only
// this network namespace reaches.
const adminToken = "admin"

// bound is how long anything may take that takes seconds when all is well.
// Exceeding it means stuck, not slow.
const bound = 90 * time.Second

// Cluster is an API server with its store.
type Cluster struct {
	API *API

	etcd, server *process
}

// StartCluster starts etcd and the API server below dir and waits until they
// serve. binaries holds kube-apiserver.
func StartCluster(ctx context.Context, dir, binaries string) (c *Cluster, err error) {
	c = &Cluster{API: newAPI("https://" + net.JoinHostPort(nodeAddress, apiPort))}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%w\n%s%s", err, c.etcd.tail(), c.server.tail()), c.Close())
		}
	}()
	if err := addAddress(); err != nil {
		return c, err
	}
	if c.etcd, err = startEtcd(dir); err != nil {
		return c, err
	}
	if c.server, err = startServer(dir, binaries); err != nil {
		return c, err
	}
	return c, c.API.awaitReady(ctx)
}

// Close ends both. What they stored goes with the run's directory.
func (c *Cluster) Close() error {
	return errors.Join(c.server.stop(unix.SIGKILL), c.etcd.stop(unix.SIGKILL))
}

// addAddress makes the device that has the node's address.
func addAddress() error {
	for _, args := range [][]string{
		{"link", "add", nodeDevice, "type", "bridge"},
		{"address", "add", nodeAddress + "/24", "dev", nodeDevice},
		{"link", "set", nodeDevice, "up"},
		{"route", "add", "default", "dev", nodeDevice},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %q: %w: %s", args, err, out)
		}
	}
	return nil
}

func startEtcd(dir string) (*process, error) {
	program, err := exec.LookPath("etcd")
	if err != nil {
		return nil, fmt.Errorf("etcd (Debian's etcd-server): %w", err)
	}
	url, peers := "http://"+net.JoinHostPort(nodeAddress, etcdPort), "http://"+net.JoinHostPort(nodeAddress, etcdPeerPort)
	return start(dir, "etcd", program, nil,
		"--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default="+peers)
}

func startServer(dir, binaries string) (*process, error) {
	key, tokens := filepath.Join(dir, "service-accounts.pem"), filepath.Join(dir, "tokens.csv")
	if err := writeKey(key); err != nil {
		return nil, err
	}
	if err := os.WriteFile(tokens, []byte(adminToken+`,admin,1,"system:masters"`+"\n"), 0o600); err != nil {
		return nil, err
	}
	return start(dir, "kube-apiserver", filepath.Join(binaries, "kube-apiserver"), nil,
		"--etcd-servers", "http://"+net.JoinHostPort(nodeAddress, etcdPort),
		"--bind-address", nodeAddress, "--advertise-address", nodeAddress, "--secure-port", apiPort,
		"--cert-dir", filepath.Join(dir, "apiserver"),
		"--service-account-issuer", "https://rig.test", "--service-account-key-file", key,
		"--service-account-signing-key-file", key,
		"--token-auth-file", tokens, "--authorization-mode", "RBAC",
		"--disable-admission-plugins", "ServiceAccount",
		"--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.97.0.0/24",
		"--allow-privileged")
}

// writeKey makes the key that signs service accounts' tokens.
func writeKey(path string) error {
	const bits = 2048
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}

// awaitReady waits, bounded, until the API server says that it is ready.
func (a *API) awaitReady(ctx context.Context) error {
	var err error
	if rig.Eventually(bound, func() bool {
		_, err = a.do(ctx, http.MethodGet, "/readyz", "", nil)
		return err == nil
	}) {
		return nil
	}
	return fmt.Errorf("the API server does not become ready: %w", err)
}
