package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/rig"
)

// Namespace is the containerd namespace that CRI keeps everything in.
const Namespace = "k8s.io"

// The images that every node has. containerd runs PauseImage as each pod's own
// container; the others have busybox and the rig's payload.
const (
	PauseImage   = "registry.k8s.io/pause:3.10.2"
	BaseImage    = "rig.test/base:1"
	LayeredImage = "rig.test/layered:1"
)

// bound is how long anything may take that takes milliseconds when all is
// well. Exceeding it means stuck, not slow.
const bound = 60 * time.Second

// Config describes a node.
type Config struct {
	Machine  *rig.Machine
	ShimDir  string                  // searched for shims before the built ones
	Handlers map[string]Registration // by the name that a RuntimeClass gives
	Layers   int                     // of LayeredImage
	Debug    bool                    // log at debug level
	Cgroup   string                  // as rig.DaemonConfig's
}

// Node is a containerd with CRI, a network for pods, and images.
type Node struct {
	*rig.Machine
	Daemon  *rig.Daemon
	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient
	Tree    rig.Tree // what a container must see of LayeredImage

	conn *grpc.ClientConn
	pods atomic.Int64 // so far, to number them
}

// Enter is rig.Enter with a network namespace, in which loopback is up, and a
// /var/lib of the run's own, where network plugins keep records. plugins is
// the network plugins' directory.
func Enter(ctx context.Context, version string) (m *rig.Machine, err error) {
	if os.Geteuid() != 0 {
		return nil, rig.ErrNotRoot
	}
	if _, err := rig.BuildCNI(ctx); err != nil { // there is no network inside
		return nil, err
	}
	if m, err = rig.Enter(ctx, version, unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	if err := unix.Mount("rig", "/var/lib", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return nil, fmt.Errorf("mount /var/lib: %w", err)
	}
	return m, raiseLoopback()
}

// raiseLoopback sets the interface "lo" of the network namespace up.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("raise lo: socket: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("raise lo: %w", err)
	}
	return nil
}

// Context names CRI's namespace to containerd's own client.
func Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// Start starts containerd, connects to its CRI and imports the images.
func Start(ctx context.Context, cfg Config) (_ *Node, err error) {
	plugins, err := rig.BuildCNI(ctx)
	if err != nil {
		return nil, err
	}
	toml, err := configure(cfg.Machine, plugins, cfg.Handlers)
	if err != nil {
		return nil, err
	}
	n := &Node{Machine: cfg.Machine}
	n.Daemon, err = rig.StartDaemon(ctx, rig.DaemonConfig{Machine: cfg.Machine, ShimDir: cfg.ShimDir,
		Debug: cfg.Debug, CRI: true, Extra: toml, Cgroup: cfg.Cgroup})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%w\n%s", err, n.Daemon.Log()), n.Close())
		}
	}()
	n.conn, err = grpc.NewClient("unix://"+n.Daemon.Address(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, err
	}
	n.Runtime, n.Images = runtimeapi.NewRuntimeServiceClient(n.conn), runtimeapi.NewImageServiceClient(n.conn)
	if err := n.importImages(Context(ctx), cfg.Layers); err != nil {
		return nil, err
	}
	return n, n.AwaitReady(ctx)
}

// Close stops containerd. Pods keep running.
func (n *Node) Close() (err error) {
	if n.conn != nil {
		err = n.conn.Close()
	}
	return errors.Join(err, n.Daemon.Close())
}

// AwaitReady waits, bounded, until CRI says that runtime and network are
// ready, as kubelet does before it runs pods.
func (n *Node) AwaitReady(ctx context.Context) error {
	var last *runtimeapi.StatusResponse
	var err error
	if rig.Eventually(bound, func() bool {
		last, err = n.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
		ready := 0
		for _, c := range last.GetStatus().GetConditions() {
			if (c.Type == runtimeapi.RuntimeReady || c.Type == runtimeapi.NetworkReady) && c.Status {
				ready++
			}
		}
		return ready == 2
	}) {
		return nil
	}
	return fmt.Errorf("CRI does not become ready: %w: %v", err, last)
}

func (n *Node) importImages(ctx context.Context, count int) error {
	base, err := n.BaseLayer()
	if err != nil {
		return err
	}
	payload, err := os.ReadFile(n.Payload)
	if err != nil {
		return err
	}
	// A pod's own process does as the real one does: it sleeps until SIGTERM.
	pause := rig.Layer{{Name: "pause", Mode: 0o755, Data: payload}}
	layers, tree := rig.LayeredImage(base, count-1)
	n.Tree = tree
	shell := []string{"/bin/sh"}
	for _, image := range []struct {
		name   string
		layers []rig.Layer
		cmd    []string
	}{
		{PauseImage, []rig.Layer{pause}, []string{"/pause", "wait"}},
		{BaseImage, []rig.Layer{base}, shell},
		{LayeredImage, layers, shell},
	} {
		if _, err := n.Daemon.ImportImage(ctx, image.name, image.layers, image.cmd...); err != nil {
			return err
		}
		if err := n.awaitImage(ctx, image.name); err != nil {
			return err
		}
	}
	return nil
}

// awaitImage waits until CRI has learnt of an image that was imported past it.
func (n *Node) awaitImage(ctx context.Context, name string) error {
	var err error
	if rig.Eventually(bound, func() bool {
		var r *runtimeapi.ImageStatusResponse
		r, err = n.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
		return err == nil && r.Image != nil
	}) {
		return nil
	}
	return fmt.Errorf("CRI does not see the image %s: %w", name, err)
}
