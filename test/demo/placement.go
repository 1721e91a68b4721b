package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"containerd-shim-numa-v1/test/rig"
)

// ownCPUs are the settings of a container that has CPUs of its own.
const ownCPUs = "placement.cpu-policy = 'dedicated'\n"

// allowed prints the CPUs that a process may use.
const allowed = `grep Cpus_allowed_list /proc/self/status | cut -f 2`

// placement runs a container that shares its node's CPUs, then one beside it
// that has one of its own, and prints what both may use before, while and
// after.
func placement(ctx context.Context, daemon *rig.Daemon, dir, image string) error {
	settings := filepath.Join(dir, "dedicated.toml")
	if err := os.WriteFile(settings, []byte(ownCPUs), 0o600); err != nil {
		return err
	}
	run := []string{"run", "--runtime", rig.OurRuntime, "--snapshotter", rig.Snapshotter}
	look := func(id, when string) error {
		out := daemon.RunCtr(ctx, "task", "exec", "--exec-id", "look", id, "/bin/sh", "-c", allowed)
		if out.Err != nil {
			return fmt.Errorf("look at the container %s: %w: %s", id, out.Err, out.Stderr)
		}
		fmt.Printf("  | %-22s CPUs %s", id+when+":", out.Stdout)
		return nil
	}
	start := func(id string, flags ...string) error {
		args := slices.Concat(run, flags, []string{"-d", image, id, "/payload", "wait"})
		if out := daemon.RunCtr(ctx, args...); out.Err != nil {
			return fmt.Errorf("run the container %s: %w: %s%s", id, out.Err, out.Stderr, daemon.Log())
		}
		return nil
	}
	fmt.Printf("\nPlaced: one container shares the CPUs of a node, the other has one of its own\n\n  $ ctr %s -d demo sharing\n", strings.Join(run, " "))
	if err := start("sharing"); err != nil {
		return err
	}
	if err := look("sharing", ""); err != nil {
		return err
	}
	fmt.Printf("  $ ctr %s -d --cpus 1 --runtime-config-path dedicated.toml demo owning\n", strings.Join(run, " "))
	if err := start("owning", "--cpus", "1", "--runtime-config-path", settings); err != nil {
		return err
	}
	if err := errors.Join(look("owning", ""), look("sharing", ", beside it")); err != nil {
		return err
	}
	for _, id := range []string{"owning", "sharing"} {
		if out := daemon.RunCtr(ctx, "task", "rm", "--force", id); out.Err != nil {
			return fmt.Errorf("remove %s: %w: %s", id, out.Err, out.Stderr)
		}
		if id == "owning" {
			if err := look("sharing", ", alone again"); err != nil {
				return err
			}
		}
	}
	fmt.Println("\n  The shims' log says why:")
	for line := range strings.Lines(daemon.Log()) {
		if _, text, ok := strings.Cut(line, `msg="placed on `); ok && (strings.Contains(line, "id=sharing") || strings.Contains(line, "id=owning")) {
			reason, _, _ := strings.Cut(text, `"`)
			fmt.Printf("  | placed on %s\n", reason)
		}
	}
	return nil
}
