// Command demo shows what the shim is for on this machine: it runs a
// many-layered image, plain and in a user namespace, through ctr with this
// project's runtime and with containerd's own, and prints what the containers
// said, how long they took, and how the host's mount table changed. Then it
// places two containers beside each other.
//
// It brings its own containerd, in a mount namespace whose propagation is
// shared as systemd's is. Nothing outside of that is touched.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"containerd-shim-numa-v1/test/rig"
)

// mappedRoot is the host's id of root inside the user namespace.
const mappedRoot = 100000

// script is what runs in the container: who it is, and what of the layers it
// sees.
const script = `echo "I am $(id -u):$(id -g) in here, pid $$."
/payload ids | grep uid_map | while read _ in out n; do echo "My ids $in.. are the host's $out.. ($n of them)."; done
echo "/data has $(ls /data | wc -l) entries from all layers; /data/shared: $(cat /data/shared), owner $(stat -c %u:%g /data/shared)."`

func main() {
	layers := flag.Int("layers", 50, "layers of the image")
	runs := flag.Int("runs", 5, "runs of each kind; times are medians")
	runtimes := flag.String("runtimes", rig.OurRuntime+","+rig.RuncRuntime, "runtime types to set side by side")
	shimDir := rig.ShimDirFlag()
	flag.Parse()
	if err := demo(*layers, *runs, strings.Split(*runtimes, ","), *shimDir); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// result is what the runs of one kind showed.
type result struct {
	output string
	wall   []time.Duration
	mounts rig.MountActivity // the worst of all runs
}

func (r *result) add(output string, wall time.Duration, a rig.MountActivity) {
	r.output = output
	r.wall = append(r.wall, wall)
	r.mounts.Wakeups = max(r.mounts.Wakeups, a.Wakeups)
	r.mounts.Peak = max(r.mounts.Peak, a.Peak)
	r.mounts.Left = max(r.mounts.Left, a.Left)
}

func (r *result) median() time.Duration {
	slices.Sort(r.wall)
	return r.wall[len(r.wall)/2]
}

func demo(layers, runs int, runtimes []string, shimDir string) (err error) {
	ctx := context.Background()
	find := rig.ShimDir
	if slices.Contains(runtimes, rig.OurRuntime) {
		find = rig.RequireShim
	}
	if shimDir, err = find(shimDir); err != nil {
		return err
	}
	machine, err := rig.Enter(ctx, "2")
	if err != nil {
		return err
	}
	daemon, err := rig.StartDaemon(ctx, rig.DaemonConfig{Machine: machine, ShimDir: shimDir})
	if err != nil {
		return err
	}
	defer daemon.Close()
	image, _, err := daemon.ImportLayered(ctx, "demo.test/layered:1", layers)
	if err != nil {
		return err
	}
	fmt.Printf("containerd %s of its own, an image of %d layers, %d runs of each kind.\n", machine.Version, layers, runs)

	for _, kind := range []struct {
		title string
		flags []string
	}{
		{"Plain", nil},
		{"In a user namespace, layers idmapped", userNamespaceFlags()},
	} {
		args := []string{"run", "--rm", "--runtime", "RUNTIME", "--snapshotter", rig.Snapshotter}
		args = append(append(args, kind.flags...), image.Name())
		results, err := sideBySide(ctx, daemon, runs, runtimes, args)
		if err != nil {
			return err
		}
		report(kind.title, args, runtimes, results)
	}
	if !slices.Contains(runtimes, rig.OurRuntime) {
		return nil
	}
	return placement(ctx, daemon, machine.Dir, image.Name())
}

func userNamespaceFlags() []string {
	mapping := fmt.Sprintf("0:%d:%d", mappedRoot, rig.Mapped)
	return []string{"--uidmap", mapping, "--gidmap", mapping, "--remap-labels"}
}

// sideBySide runs the command with each runtime in turn, so that whatever else
// the machine does meets all alike. A first round warms caches up.
func sideBySide(ctx context.Context, daemon *rig.Daemon, runs int, runtimes, args []string) (map[string]*result, error) {
	results := map[string]*result{}
	for round := range runs + 1 {
		for _, runtime := range runtimes {
			command := slices.Clone(args)
			command[slices.Index(command, "RUNTIME")] = runtime
			command = append(command, fmt.Sprintf("demo-%d", round), "/bin/sh", "-c", script)
			watch, err := rig.WatchMounts()
			if err != nil {
				return nil, err
			}
			begin := time.Now()
			run := daemon.RunCtr(ctx, command...)
			wall := time.Since(begin)
			activity := watch.Stop()
			if run.Err != nil {
				return nil, fmt.Errorf("%s: %w\n%s%s%s", runtime, run.Err, run.Stdout, run.Stderr, daemon.Log())
			}
			if round == 0 {
				results[runtime] = &result{}
				continue
			}
			results[runtime].add(run.Stdout, wall, activity)
		}
	}
	return results, nil
}

// report prints one kind of run for a person.
func report(title string, args, runtimes []string, results map[string]*result) {
	command := strings.Join(args, " ")
	fmt.Printf("\n%s\n\n  $ ctr %s demo sh -c ...\n", title, strings.Replace(command, "RUNTIME", runtimes[0], 1))
	for line := range strings.Lines(results[runtimes[0]].output) {
		fmt.Print("  | ", line)
	}
	fmt.Printf("\n  %-24s %12s %24s %22s\n", "runtime", "wall time", "entries in the host's", "times its readers")
	fmt.Printf("  %-24s %12s %24s %22s\n", "", "(median)", "mount table while it ran", "were woken up")
	for _, runtime := range runtimes {
		r := results[runtime]
		fmt.Printf("  %-24s %9d ms %24s %22d\n", runtime, r.median().Milliseconds(), fmt.Sprintf("%+d", r.mounts.Peak), r.mounts.Wakeups)
	}
}
