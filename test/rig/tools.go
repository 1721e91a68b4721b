package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Tools are the programs a rig runs, all built from pinned modules.
type Tools struct {
	Version    string // containerd's, without the leading v
	Containerd string
	Ctr        string
	Runc       string
	Path       string // PATH for the daemon: the shims' and runc's directories
}

// component is one module's programs and how they are built.
type component struct {
	name     string // cache directory prefix
	moduleAt string // directory of the go.mod that pins it, below the test module
	version  string // pins it here, to build with its own go.mod; "" for moduleAt's
	module   string
	packages []string
	tags     string
	cgo      bool
}

// snapshotterTags leave out the snapshotters that need C headers or LVM.
const snapshotterTags = "no_btrfs,no_devmapper,no_zfs"

var (
	containerd2 = component{
		name: "containerd", module: "github.com/containerd/containerd/v2",
		packages: []string{"cmd/containerd", "cmd/ctr", "cmd/containerd-shim-runc-v2"}, tags: snapshotterTags,
	}
	containerd22 = component{
		name: "containerd", module: "github.com/containerd/containerd/v2", version: "2.2.9",
		packages: []string{"cmd/containerd", "cmd/ctr", "cmd/containerd-shim-runc-v2"}, tags: snapshotterTags,
	}
	containerd17 = component{
		name: "containerd", moduleAt: "containerd17", module: "github.com/containerd/containerd",
		packages: []string{"cmd/containerd", "cmd/ctr", "cmd/containerd-shim-runc-v2"}, tags: snapshotterTags,
	}
	runc = component{
		name: "runc", module: "github.com/opencontainers/runc",
		packages: []string{"."}, tags: "seccomp", cgo: true,
	}
	cniPlugins = component{
		name: "cni-plugins", module: "github.com/containernetworking/plugins",
		packages: []string{"plugins/main/bridge", "plugins/main/loopback", "plugins/ipam/host-local"},
	}
)

// kubernetes are the parts of a cluster that pods on one node need.
var kubernetes = component{
	name: "kubernetes", moduleAt: "kubernetes/binaries", module: "k8s.io/kubernetes",
	packages: []string{"cmd/kube-apiserver", "cmd/kubelet"},
}

// Versions are the containerd versions that most suites run with, by prefix.
// Build also knows 2.2.
var Versions = []string{"2", "1.7"}

// ModuleDir finds the test module's root from the current directory upwards.
func ModuleDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(b, []byte("module containerd-shim-numa-v1/test\n")) {
			return dir, nil
		}
		if sub := filepath.Join(dir, "test", "go.mod"); err == nil && fileExists(sub) {
			return filepath.Join(dir, "test"), nil
		}
		if dir == "/" {
			return "", errors.New("not inside the source tree: no go.mod of containerd-shim-numa-v1/test above the current directory")
		}
	}
}

// CacheDir is where built programs are kept, one directory per version:
// $XDG_CACHE_HOME/containerd-shim-numa, or ~/.cache/containerd-shim-numa.
func CacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	return filepath.Join(cache, "containerd-shim-numa"), nil
}

// Build returns the programs of one containerd version, building those that
// the cache lacks. version selects by prefix among the pinned ones: "2",
// "2.4.2", "1.7".
func Build(ctx context.Context, version string) (*Tools, error) {
	root, err := ModuleDir()
	if err != nil {
		return nil, err
	}
	daemon := containerd2
	switch {
	case strings.HasPrefix(version, "1."):
		daemon = containerd17
	case strings.HasPrefix(version, "2.2"):
		daemon = containerd22
	}
	daemonDir, pinned, err := daemon.build(ctx, root)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(pinned, version) {
		return nil, fmt.Errorf("containerd %s is not pinned here: have %s", version, pinned)
	}
	runcDir, _, err := runc.build(ctx, root)
	if err != nil {
		return nil, err
	}
	return &Tools{
		Version:    pinned,
		Containerd: filepath.Join(daemonDir, "containerd"),
		Ctr:        filepath.Join(daemonDir, "ctr"),
		Runc:       filepath.Join(runcDir, "runc"),
		Path:       strings.Join([]string{daemonDir, runcDir, "/usr/sbin", "/usr/bin", "/sbin", "/bin"}, ":"),
	}, nil
}

// BuildCNI returns the directory of the network plugins for pods (bridge,
// loopback, host-local), building them if the cache lacks them.
func BuildCNI(ctx context.Context) (dir string, err error) {
	root, err := ModuleDir()
	if err != nil {
		return "", err
	}
	dir, _, err = cniPlugins.build(ctx, root)
	return dir, err
}

// BuildKubernetes returns the directory of kube-apiserver and kubelet, building
// them if the cache lacks them: some ten minutes on two cores.
func BuildKubernetes(ctx context.Context) (dir string, err error) {
	root, err := ModuleDir()
	if err != nil {
		return "", err
	}
	dir, _, err = kubernetes.build(ctx, root)
	return dir, err
}

// build makes the component's cache directory unless it is there. It builds
// beside and renames, so that two processes may build at once.
func (c component) build(ctx context.Context, root string) (dir, version string, err error) {
	from, version := filepath.Join(root, c.moduleAt), c.version
	if version == "" {
		out, err := goTool(ctx, from, nil, "list", "-m", "-f", "{{.Version}}", c.module)
		if err != nil {
			return "", "", err
		}
		version = strings.TrimPrefix(strings.TrimSpace(out), "v")
	}
	cache, err := CacheDir()
	if err != nil {
		return "", "", err
	}
	dir = filepath.Join(cache, c.name+"-"+version)
	if fileExists(dir) {
		return dir, version, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", "", err
	}
	// An interrupt must leave no half of a build, here or where go has its
	// temporary files, which it leaves behind.
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	tmp, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", "", err
	}
	fmt.Fprintf(os.Stderr, "rig: building %s %s once, into %s\n", c.name, version, dir)
	args := []string{"build", "-trimpath", "-tags", c.tags, "-o", tmp + "/"}
	env, at := []string{"CGO_ENABLED=0"}, ""
	if c.cgo {
		env = []string{"CGO_ENABLED=1"}
	}
	if c.version != "" {
		args, env, at = []string{"install", "-trimpath", "-tags", c.tags}, append(env, "GOBIN="+tmp), "@v"+c.version
	}
	for _, p := range c.packages {
		args = append(args, strings.TrimSuffix(c.module+"/"+p, "/.")+at)
	}
	if _, err := goTool(ctx, from, append(env, "GOTMPDIR="+tmp), args...); err != nil {
		return "", "", err
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", "", fmt.Errorf("install %s %s: %w", c.name, version, err)
	}
	return dir, version, nil
}

// buildPayload builds the static program that runs inside containers into dir
// and returns its path. The Go build cache makes a repeated call cheap.
func buildPayload(ctx context.Context, dir string) (string, error) {
	root, err := ModuleDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "payload")
	// As in build: dir is removed when an interrupt kills go.
	env := []string{"CGO_ENABLED=0", "GOTMPDIR=" + dir}
	_, err = goTool(ctx, root, env, "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./payload")
	return path, err
}

// goTool runs the go command in dir and returns its standard output.
func goTool(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "GOWORK=off"), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s in %s: %w\n%s", strings.Join(args, " "), dir, err, stderr.String())
	}
	return stdout.String(), nil
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
