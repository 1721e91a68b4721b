package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageEnv tells a re-executed program which part of the isolation it plays.
const (
	stageEnv    = "NUMA_RIG_STAGE"
	stageInit   = "init"
	stageInside = "inside"
	// dirEnv carries the working directory from the outer process inwards.
	dirEnv = "NUMA_RIG_DIR"
)

// Isolate makes the calling program continue in mount and PID namespaces of
// its own: /run is an empty tmpfs, /proc shows only the new namespace, and
// propagation of every mount is shared. It returns only there, with the run's
// working directory (traversable by everyone, since user-namespaced roots
// walk through it). The outer process waits, removes that directory and the
// run's cgroups, and exits with the inner program's status.
//
// It must be called before the program starts goroutines or opens files it
// needs. Arguments, environment and standard streams are passed on.
//
// namespaces are CLONE_ flags of further namespaces to make, which only their
// kernel's defaults are set up in.
func Isolate(namespaces ...uintptr) (dir string, err error) {
	switch os.Getenv(stageEnv) {
	case stageInside:
		os.Unsetenv(stageEnv)
		return os.Getenv(dirEnv), nil
	case stageInit:
		code, err := runInit()
		if err != nil {
			fmt.Fprintln(os.Stderr, "rig:", err)
			code = 1
		}
		os.Exit(code)
	}
	code, err := runOutside(namespaces)
	if err != nil {
		return "", err
	}
	os.Exit(code)
	return "", nil
}

// runOutside starts the namespaces, waits for them and cleans up after them.
func runOutside(namespaces []uintptr) (code int, err error) {
	// Interrupts reach the init by the terminal's process group or by
	// forwarding; this process must survive them, however many, to clean up.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(interrupts)

	dir, err := os.MkdirTemp("", "numa-rig-")
	if err != nil {
		return 0, fmt.Errorf("make working directory: %w", err)
	}
	defer func() { err = errors.Join(err, removeRun(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil {
		return 0, err
	}

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), stageEnv+"="+stageInit, dirEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
	}
	for _, flag := range namespaces {
		cmd.SysProcAttr.Cloneflags |= flag
	}
	if err := startLocked(cmd); err != nil {
		return 0, fmt.Errorf("start in new mount and PID namespaces: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case <-interrupts:
			// The namespace's init ignores all but KILL; and KILL ends
			// everything in it, which is what an interrupt asks for.
			cmd.Process.Kill()
		case err := <-done:
			if exit := new(exec.ExitError); errors.As(err, &exit) {
				return max(exit.ExitCode(), 1), nil
			}
			return 0, err
		}
	}
}

// runInit is PID 1 of the namespace: it prepares the mounts, starts the
// program proper and reaps every orphan until that program ends.
func runInit() (code int, err error) {
	if err := prepareMounts(); err != nil {
		return 0, err
	}
	env := append(slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, stageEnv+"=")
	}), stageEnv+"="+stageInside)
	main, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env: env, Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return 0, fmt.Errorf("start the isolated program: %w", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the isolated program: %w", err)
		case pid == main && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == main:
			return status.ExitStatus(), nil
		}
	}
}

// prepareMounts detaches the namespace from the host's propagation, then
// shares it within itself as systemd does for "/".
func prepareMounts() error {
	steps := []struct {
		what, source, target, fstype string
		flags                        uintptr
		data                         string
	}{
		{"make / private", "", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"mount /proc", "proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"mount /run", "rig", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"make / shared", "", "/", "", unix.MS_REC | unix.MS_SHARED, ""},
	}
	for _, s := range steps {
		if err := unix.Mount(s.source, s.target, s.fstype, s.flags, s.data); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// removeRun removes the working directory and the cgroups that carry its
// name. Everything in them is dead by now.
func removeRun(dir string) error {
	err := os.RemoveAll(dir)
	for _, cg := range cgroupDirs(filepath.Base(dir)) {
		if rmErr := os.Remove(cg); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}
	return err
}
