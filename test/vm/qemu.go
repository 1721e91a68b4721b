package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"containerd-shim-numa-v1/test/vm/guest"
)

// machine is a guest ready to boot.
type machine struct {
	release         string
	disk, initramfs string
	command         []string // QEMU's; its two serial lines write to descriptors 3 and 4
}

// qemuCommand is how the QEMU unpacked in dir starts: by its own dynamic
// linker, with its own libraries, since it is newer than the machine's.
func qemuCommand(dir string) []string {
	libraries := filepath.Join(dir, "usr/lib/x86_64-linux-gnu")
	return []string{
		filepath.Join(libraries, "ld-linux-x86-64.so.2"),
		"--library-path", libraries,
		filepath.Join(dir, "usr/bin/qemu-system-x86_64"),
		"-L", filepath.Join(dir, "usr/share/qemu"),
		"-L", filepath.Join(dir, "usr/share/seabios"),
	}
}

// deviceArguments are QEMU's for everything but the topology.
func deviceArguments(kernel, initramfs, disk string) []string {
	return []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-accel", "tcg,thread=multi",
		// Linux shows SMT siblings for Intel's CPUs only: QEMU describes
		// AMD's threads under TCG as cores. cmpxchg16b is not atomic in
		// multi-threaded TCG of QEMU before 8.
		"-cpu", "max,vendor=GenuineIntel,cx16=off",
		"-kernel", kernel, "-initrd", initramfs,
		"-append", "console=ttyS0 panic=-1 oops=panic quiet loglevel=4 mitigations=off random.trust_cpu=on tsc=reliable",
		"-drive", "if=none,id=disk,format=raw,cache=unsafe,file=" + strings.ReplaceAll(disk, ",", ",,"),
		"-device", "virtio-blk-pci,drive=disk",
		"-add-fd", "fd=3,set=1", "-chardev", "file,id=console,path=/dev/fdset/1,append=on", "-serial", "chardev:console",
		"-add-fd", "fd=4,set=2", "-chardev", "file,id=frames,path=/dev/fdset/2,append=on", "-serial", "chardev:frames",
	}
}

// Why a guest was stopped.
var (
	errBootBound = fmt.Errorf("did not start its command within %s", bootBound)
	errTimeout   = errors.New("its command did not end in time")
)

// run boots the machine once and fills in r. It reports whether the command
// started.
func (m machine) run(ctx context.Context, b Boot, r *Result) (started bool, err error) {
	// The parent whose death kills QEMU is a thread, prctl(2): hold it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	bound := time.AfterFunc(bootBound, func() { stop(errBootBound) })
	defer func() { bound.Stop() }()

	var console, stderr bytes.Buffer
	consoleRead, consoleWrite, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer consoleRead.Close()
	defer consoleWrite.Close()
	framesRead, framesWrite, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer framesRead.Close()
	defer framesWrite.Close()

	cmd := exec.CommandContext(ctx, m.command[0], m.command[1:]...)
	cmd.Stderr = &stderr
	cmd.ExtraFiles = []*os.File{consoleWrite, framesWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("start QEMU: %w", err)
	}
	consoleWrite.Close()
	framesWrite.Close()
	consoleDone := make(chan error, 1)
	go func() {
		_, err := io.Copy(&console, consoleRead)
		consoleDone <- err
	}()

	*r = Result{Release: m.release, Attempts: r.Attempts}
	f := frames{result: r, stdout: b.Stdout, onStart: func() {
		bound.Stop()
		bound = time.AfterFunc(b.Timeout, func() { stop(errTimeout) })
	}}
	frameErr := f.read(framesRead)
	if frameErr != nil {
		stop(frameErr) // else QEMU would wait for a reader
	}
	waitErr := cmd.Wait()
	r.Wall = time.Since(begin)
	consoleErr := <-consoleDone
	r.Console = strings.ReplaceAll(console.String(), "\r", "")
	if f.exited {
		return f.started, errors.Join(frameErr, consoleErr)
	}
	if cause := context.Cause(ctx); cause != nil {
		return f.started, cause
	}
	what := "died before its command started"
	if f.started {
		what = "died while its command ran"
	}
	return f.started, errors.Join(errors.New(what), waitErr, consoleErr, textError(stderr.String()))
}

func textError(text string) error {
	if text = strings.TrimSpace(text); text != "" {
		return errors.New(text)
	}
	return nil
}

// frames takes what init sends.
type frames struct {
	result          *Result
	stdout          io.Writer
	onStart         func()
	started, exited bool
}

// read reads until the guest is off.
func (f *frames) read(r io.Reader) error {
	for {
		kind, payload, err := guest.ReadFrame(r)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from the guest: %w", err)
		}
		if err := f.take(kind, payload); err != nil {
			return err
		}
	}
}

func (f *frames) take(kind guest.Kind, payload []byte) (err error) {
	switch kind {
	case guest.Started:
		f.started = true
		f.onStart()
		f.result.Uptime, err = time.ParseDuration(string(payload) + "s")
	case guest.Output:
		f.result.Output = append(f.result.Output, payload...)
		if f.stdout != nil {
			_, err = f.stdout.Write(payload)
		}
	case guest.Exited:
		f.exited = true
		f.result.ExitCode, err = strconv.Atoi(string(payload))
	case guest.Failed:
		err = fmt.Errorf("its init: %s", payload)
	default:
		err = fmt.Errorf("frame of unknown kind %q from the guest", kind)
	}
	return err
}
