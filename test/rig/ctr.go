package rig

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"time"
)

// Ctr is containerd's command line client set up for the daemon and the run's
// namespace, for a person's view of it. The caller sets streams and runs it.
func (d *Daemon) Ctr(ctx context.Context, args ...string) *exec.Cmd {
	all := append([]string{"--address", d.Address(), "--namespace", d.cfg.Machine.Name()}, args...)
	cmd := exec.CommandContext(ctx, d.cfg.Machine.Ctr, all...)
	cmd.Env = []string{"PATH=" + d.cfg.Machine.Path, "TMPDIR=" + d.tmp(), "HOME=" + d.cfg.Machine.Dir, "TERM=xterm"}
	return cmd
}

// CtrResult is what one ctr command printed and how it ended.
type CtrResult struct {
	Stdout, Stderr string
	Code           int   // exit status
	Err            error // nil when Code is 0
}

// ctrBound ends a ctr that is stuck.
const ctrBound = 2 * time.Minute

// RunCtr runs ctr to its end, without input.
func (d *Daemon) RunCtr(ctx context.Context, args ...string) CtrResult {
	ctx, cancel := context.WithTimeout(ctx, ctrBound)
	defer cancel()
	cmd := d.Ctr(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return CtrResult{
		Stdout: strings.ReplaceAll(stdout.String(), "\r\n", "\n"),
		Stderr: stderr.String(),
		Code:   cmd.ProcessState.ExitCode(),
		Err:    err,
	}
}
