package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
)

// Snapshotter is the one every image of the rig is unpacked into.
const Snapshotter = "overlayfs"

// Bounds of daemon operations: generous beside the milliseconds they take, so
// that a loaded machine fails nothing.
const (
	startBound = 60 * time.Second
	stopBound  = 30 * time.Second
)

// DaemonConfig describes one private containerd.
type DaemonConfig struct {
	Machine *Machine
	Name    string   // state is /run/<Name>; "" means "containerd"
	ShimDir string   // searched for shims before the built ones; "" for none
	CRI     bool     // load the CRI plugins
	Debug   bool     // log at debug level, in the daemon and in shims
	Env     []string // added to the daemon's, and so to every shim's, environment
	Extra   string   // TOML added to the configuration
	Cgroup  string   // cpuacct (v1) or v2 cgroup to put daemon and shims into; "" for none
}

// Daemon is a containerd process that can be stopped, killed and started
// again on the same state.
type Daemon struct {
	cfg    DaemonConfig
	cmd    *exec.Cmd
	client *containerd.Client
}

// StartDaemon writes the configuration, starts containerd and waits until it
// serves.
func StartDaemon(ctx context.Context, cfg DaemonConfig) (*Daemon, error) {
	if cfg.Name == "" {
		cfg.Name = "containerd"
	}
	d := &Daemon{cfg: cfg}
	for _, dir := range []string{d.Root(), d.State(), d.tmp()} {
		// Traversable: the root of a user namespace walks to its bundle.
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(d.configPath(), []byte(d.config()), 0o600); err != nil {
		return nil, err
	}
	if err := d.Start(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// Root is containerd's persistent directory: content, snapshots, metadata.
func (d *Daemon) Root() string { return filepath.Join(d.cfg.Machine.Dir, d.cfg.Name, "root") }

// State is containerd's volatile directory: sockets, bundles, runtime state.
func (d *Daemon) State() string { return filepath.Join("/run", d.cfg.Name) }

// Address is containerd's gRPC socket.
func (d *Daemon) Address() string { return filepath.Join(d.State(), "containerd.sock") }

// Bundle is the bundle directory of a container of this run.
func (d *Daemon) Bundle(id string) string {
	return filepath.Join(d.State(), "io.containerd.runtime.v2.task", d.cfg.Machine.Name(), id)
}

// Client talks to the daemon in the run's namespace. It survives restarts.
func (d *Daemon) Client() *containerd.Client { return d.client }

// Pid is the daemon's process id.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Log is what the daemon, and shims through it, have logged, without the
// lines every start has.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(d.LogPath())
	if err != nil {
		return err.Error()
	}
	var log strings.Builder
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, "loading plugin") {
			log.WriteString(line)
		}
	}
	return log.String()
}

func (d *Daemon) tmp() string { return filepath.Join(d.cfg.Machine.Dir, d.cfg.Name, "tmp") }

func (d *Daemon) configPath() string {
	return filepath.Join(d.cfg.Machine.Dir, d.cfg.Name, "config.toml")
}

// LogPath is the file that the daemon, and shims through it, log to.
func (d *Daemon) LogPath() string {
	return filepath.Join(d.cfg.Machine.Dir, d.cfg.Name, "containerd.log")
}

// config is the configuration in the version the daemon's release wants: 1.7
// reads up to version 2 and names plugins otherwise than 2.x.
func (d *Daemon) config() string {
	version, cri := 3, `"io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"`
	if strings.HasPrefix(d.cfg.Machine.Version, "1.") {
		version, cri = 2, `"io.containerd.grpc.v1.cri"`
	}
	if d.cfg.CRI {
		cri = ""
	}
	level := "info"
	if d.cfg.Debug {
		level = "debug"
	}
	return fmt.Sprintf(`version = %d
root = %q
state = %q
disabled_plugins = [%s]

[grpc]
  address = %q
[ttrpc]
  address = %q
[debug]
  level = %q
%s
`, version, d.Root(), d.State(), cri, d.Address(), d.Address()+".ttrpc", level, d.cfg.Extra)
}

// Start runs containerd on the existing state and waits until it serves.
func (d *Daemon) Start(ctx context.Context) error {
	m := d.cfg.Machine
	path := m.Path
	if d.cfg.ShimDir != "" {
		path = d.cfg.ShimDir + ":" + path
	}
	log, err := os.OpenFile(d.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(m.Containerd, "--config", d.configPath())
	d.cmd.Env = append([]string{"PATH=" + path, "TMPDIR=" + d.tmp(), "HOME=" + m.Dir}, d.cfg.Env...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", m.Containerd, err)
	}
	if err := d.joinCgroup(); err != nil {
		return errors.Join(err, d.Kill())
	}
	return d.awaitServing(ctx)
}

// joinCgroup moves the daemon before it has started any shim, so that all
// shims are born in the same cgroup.
func (d *Daemon) joinCgroup() error {
	if d.cfg.Cgroup == "" {
		return nil
	}
	procs := CgroupFile("cpuacct", d.cfg.Cgroup, "cgroup.procs")
	if err := os.MkdirAll(filepath.Dir(procs), 0o755); err != nil {
		return err
	}
	return os.WriteFile(procs, []byte(strconv.Itoa(d.Pid())), 0)
}

func (d *Daemon) awaitServing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	var err error
	if d.client == nil {
		if !Eventually(startBound, func() bool { return fileExists(d.Address()) }) {
			return fmt.Errorf("containerd did not make its socket %s\n%s", d.Address(), d.Log())
		}
		d.client, err = containerd.New(d.Address(), containerd.WithDefaultNamespace(d.cfg.Machine.Name()))
		if err != nil {
			return fmt.Errorf("connect to %s: %w\n%s", d.Address(), err, d.Log())
		}
	}
	for {
		// The health service waits for the connection, so this does not spin.
		serving, err := d.client.IsServing(ctx)
		if err == nil && serving {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("containerd does not serve on %s: %w\n%s", d.Address(), errors.Join(err, ctx.Err()), d.Log())
		}
		time.Sleep(pollInterval)
	}
}

// Stop ends containerd by SIGTERM, as a service manager does. Containers and
// shims keep running.
func (d *Daemon) Stop() error {
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("stop containerd: %w", err)
	}
	timer := time.AfterFunc(stopBound, func() { d.cmd.Process.Kill() })
	defer timer.Stop()
	return d.wait()
}

// Kill ends containerd by SIGKILL and waits until it is gone.
func (d *Daemon) Kill() error {
	if err := d.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill containerd: %w", err)
	}
	return d.wait()
}

// Close stops the daemon and disconnects the client.
func (d *Daemon) Close() error {
	return errors.Join(d.client.Close(), d.Stop())
}

// wait reaps the daemon. Its exit status says nothing after a signal.
func (d *Daemon) wait() error {
	err := d.cmd.Wait()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return nil
	}
	return err
}
