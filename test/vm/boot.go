package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Boot is one guest: what it boots, what it runs and what it gives back.
type Boot struct {
	Kernel   string   // series of Debian's kernels, "6.1", "6.12", "7"; the newest in the cache
	Memory   int      // MiB; 0 is DefaultMemory. Not used if Topology names its nodes
	Topology Topology // of processors and memory nodes
	CgroupV1 bool     // the hybrid layout with v1 controllers; else cgroup v2 alone
	Modules  []string // kernel modules, beside those of every guest

	Files    map[string]string // host files and directories by their path in the guest
	Programs []string          // host programs to copy with their shared libraries, to the same paths

	Command []string      // run as root, without standard input
	Env     []string      // added to PATH, HOME and TERM
	Dir     string        // working directory in the guest; "" is /
	Timeout time.Duration // for the command; 0 is DefaultTimeout

	Stdout io.Writer // receives the command's output as it comes, beside Result; may be nil
	Out    string    // host directory that receives what the guest has in /out; "" for none
}

// Defaults of a Boot.
const (
	DefaultMemory  = 2048 // MiB
	DefaultTimeout = 10 * time.Minute
)

// bootBound is how long a guest may take until its command starts: twenty
// times what it takes on an idle machine.
const bootBound = 3 * time.Minute

// attempts is how many times a guest is booted that dies before its command
// starts. Emulation of several CPUs has races that hardware has not.
const attempts = 3

// Result is what a guest's command did.
type Result struct {
	Release  string        // of the kernel, as uname -r
	Output   []byte        // of the command, standard output and error as they came
	ExitCode int           // of the command, 128+n if signal n ended it
	Uptime   time.Duration // from the kernel's start to the command's
	Wall     time.Duration // from QEMU's start to its end
	Attempts int           // boots it took, 1 but for a failure of emulation
	Console  string        // the kernel's messages and init's
}

// Run boots the guest, runs its command and powers it off. The error says why
// there is no exit status; what the result then holds is how far it came. An
// exit status other than zero is not an error.
func (b Boot) Run(ctx context.Context) (r Result, err error) {
	if len(b.Command) == 0 {
		return r, errors.New("boot a guest: no command")
	}
	if b.Memory == 0 {
		b.Memory = DefaultMemory
	}
	if b.Timeout == 0 {
		b.Timeout = DefaultTimeout
	}
	c, err := openCache()
	if err != nil {
		return r, err
	}
	k, err := c.kernel(ctx, b.Kernel)
	if err != nil {
		return r, fmt.Errorf("find kernel %s: %w", b.Kernel, err)
	}
	qemu, err := c.qemu(ctx)
	if err != nil {
		return r, fmt.Errorf("find QEMU: %w", err)
	}
	dir, err := os.MkdirTemp("", "numa-vm-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, err := b.machine(ctx, dir, k, qemu)
	if err != nil {
		return r, fmt.Errorf("prepare a guest with kernel %s: %w", k.release, err)
	}
	if r, err = b.boot(ctx, m); err != nil {
		return r, fmt.Errorf("guest with kernel %s: %w\n---- end of its console\n%s----", k.release, err, tail(r.Console))
	}
	if b.Out != "" {
		err = copyOut(ctx, m.disk, dir, b.Out)
	}
	return r, err
}

// machine writes disk and initramfs into dir.
func (b Boot) machine(ctx context.Context, dir string, k kernel, qemu string) (m machine, err error) {
	m = machine{release: k.release, disk: filepath.Join(dir, "disk"), initramfs: filepath.Join(dir, "initramfs")}
	root := filepath.Join(dir, "root")
	if err := b.stage(ctx, root); err != nil {
		return m, err
	}
	if err := writeDisk(ctx, m.disk, root); err != nil {
		return m, err
	}
	if err := os.RemoveAll(root); err != nil {
		return m, err
	}
	if err := writeInitramfs(ctx, m.initramfs, dir, k, b.Modules); err != nil {
		return m, err
	}
	image, err := k.image()
	if err != nil {
		return m, err
	}
	topology, err := b.Topology.withDefaults(b.Memory).arguments()
	if err != nil {
		return m, fmt.Errorf("topology: %w", err)
	}
	m.command = append(qemuCommand(qemu), topology...)
	m.command = append(m.command, deviceArguments(image, m.initramfs, m.disk)...)
	return m, nil
}

// boot runs the machine until its command has started once.
func (b Boot) boot(ctx context.Context, m machine) (r Result, err error) {
	for r.Attempts = 1; ; r.Attempts++ {
		started, err := m.run(ctx, b, &r)
		if err == nil || started || ctx.Err() != nil || r.Attempts == attempts {
			return r, err
		}
	}
}

// consoleTail is how much of a console an error repeats, in bytes.
const consoleTail = 4096

func tail(console string) string {
	return console[max(0, len(console)-consoleTail):]
}
