// Command dev gives a developer a private containerd with this project's shim
// first on its PATH, an image to run, and a shell in which ctr and numashim find
// them. When the shell ends all of it goes.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"containerd-shim-numa-v1/test/rig"
)

func main() {
	version := flag.String("containerd", "2", "containerd `version`: 2 or 1.7")
	layers := flag.Int("layers", 50, "layers of the image")
	flag.Parse()
	if err := dev(*version, *layers); err != nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
		os.Exit(1)
	}
}

func dev(version string, layers int) error {
	ctx := context.Background()
	shimDir, err := rig.RequireShim("")
	if err != nil {
		return err
	}
	machine, err := rig.Enter(ctx, version)
	if err != nil {
		return err
	}
	daemon, err := rig.StartDaemon(ctx, rig.DaemonConfig{Machine: machine, ShimDir: shimDir, Debug: true})
	if err != nil {
		return err
	}
	defer daemon.Close()
	image, _, err := daemon.ImportLayered(ctx, "dev.test/layered:1", layers)
	if err != nil {
		return err
	}
	fmt.Printf(`containerd %s is yours until this shell ends. It logs at debug level, the shim with it, to
%s

  ctr run --rm -t --runtime %s %s first sh
  ctr run -d --runtime %[3]s %[4]s second /payload wait; numashim list

`, machine.Version, daemon.LogPath(), rig.OurRuntime, image.Name())
	return shell(ctx, machine, daemon, shimDir)
}

// shell runs the user's shell; how it ends is the user's affair.
func shell(ctx context.Context, machine *rig.Machine, daemon *rig.Daemon, shimDir string) error {
	cmd := exec.CommandContext(ctx, cmp.Or(os.Getenv("SHELL"), "/bin/sh"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(),
		"PATH="+shimDir+":"+filepath.Dir(machine.Ctr)+":"+os.Getenv("PATH"),
		"CONTAINERD_ADDRESS="+daemon.Address(),
		"CONTAINERD_NAMESPACE="+machine.Name(),
		"CONTAINERD_SNAPSHOTTER="+rig.Snapshotter)
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}
