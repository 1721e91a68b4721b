// Command init is the guest's first process. From the initramfs it loads the
// modules and enters the root disk; there it mounts what systemd would, runs
// the one command it was booted for, reports its exit status and powers off.
//
// The root disk, not the initramfs, is the guest's root: pivot_root(2) refuses
// to leave rootfs. Every mount is shared, as systemd leaves them.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/test/vm/guest"
)

func main() {
	// A signal must not end init, the kernel would panic; and ignoring it
	// would be inherited. So all are received, and dropped.
	signal.Notify(make(chan os.Signal, 1))
	if err := enterDisk(); err != nil {
		powerOff(err)
	}
	host, err := openLine()
	if err != nil {
		powerOff(err)
	}
	code, err := run(host)
	if err == nil {
		err = host.say(guest.Exited, strconv.Itoa(code))
	} else {
		err = errors.Join(err, host.say(guest.Failed, err.Error()))
	}
	powerOff(err)
}

// powerOff tells the console what went wrong, if anything did, and powers off.
func powerOff(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "init: power off:", err)
	}
}

func run(host *line) (code int, err error) {
	var spec guest.Spec
	b, err := os.ReadFile(guest.SpecPath)
	if err != nil {
		return 0, err
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return 0, fmt.Errorf("read %s: %w", guest.SpecPath, err)
	}
	if err := prepare(spec.CgroupV1); err != nil {
		return 0, err
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	if err := host.say(guest.Started, strings.Fields(string(uptime))[0]); err != nil {
		return 0, err
	}
	code, err = runCommand(spec, host)
	if err != nil {
		return 0, err
	}
	// Read-only, so that the host finds a disk without a journal to replay.
	unix.Sync()
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return 0, fmt.Errorf("remount / read-only: %w", err)
	}
	return code, nil
}

// runCommand runs the command, and returns when it and everything it started
// is gone and its output is on its way to the host.
func runCommand(spec guest.Spec, output io.Writer) (code int, err error) {
	// A pipe, so that programs do not take the serial line for a terminal.
	pr, pw, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer pr.Close()
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(output, pr)
		copied <- err
	}()

	cmd := exec.Command(spec.Command[0], spec.Command[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "TERM=dumb"}, spec.Env...)
	cmd.Dir = "/" + strings.TrimPrefix(spec.Dir, "/")
	cmd.Stdout, cmd.Stderr = pw, pw
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	err = cmd.Start()
	pw.Close()
	if err != nil {
		return 0, fmt.Errorf("start %q: %w", spec.Command, err)
	}
	code = reapUntil(cmd.Process.Pid)
	killRest()
	if err := <-copied; err != nil {
		return 0, fmt.Errorf("copy the command's output to the host: %w", err)
	}
	return code, nil
}

// reapUntil waits for children, adopted orphans included, until pid has ended,
// and returns its exit status.
func reapUntil(pid int) (code int) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 128 // it was a child: cannot be
		case got == pid && ws.Signaled():
			return 128 + int(ws.Signal())
		case got == pid && ws.Exited():
			return ws.ExitStatus()
		}
	}
}

// killBound is how long processes that were killed may take to end, under
// emulation; one that waits in the kernel for longer is left to the power-off.
const killBound = 30 * time.Second

// killRest ends every process but init, so that nothing writes to the disk or
// to the output any more. All others are children of init sooner or later.
func killRest() {
	for deadline := time.Now().Add(killBound); time.Now().Before(deadline); {
		// Kernel threads count as signalled: that nobody is left is only
		// seen by waiting.
		_ = unix.Kill(-1, unix.SIGKILL)
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case err == unix.ECHILD:
			return
		case pid == 0:
			time.Sleep(time.Millisecond)
		}
	}
}
