// Command bench-cri starts many pods at once as a kubelet does, through CRI,
// each in a user namespace of its own with one container of many layers; by
// this project's shim and by the runc shim, in turns under one containerd, so
// that whatever else the machine does meets both. It prints a table with the
// ratios, and JSON where asked.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// options are what a run can be told.
type options struct {
	pods       int // at once
	rounds     int // of each shim
	layers     int
	shimDir    *string
	json       string
	containerd string
}

// The runtime handlers that are set side by side; ratios are to the last.
var handlers = []string{"numa", "runc"}

func main() {
	var o options
	flag.IntVar(&o.pods, "pods", 100, "pods at once")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each shim; a first one, of a few pods, is not counted")
	flag.IntVar(&o.layers, "layers", 50, "layers of the containers' image")
	o.shimDir = rig.ShimDirFlag()
	flag.StringVar(&o.json, "json", "", "`file` to write the results to, as JSON")
	flag.StringVar(&o.containerd, "containerd", "2", "containerd `version`: 2 or 2.2 (1.7 can't map ids of volumes)")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-cri:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	machine, err := kubelet.Enter(ctx, o.containerd)
	if err != nil {
		return err
	}
	shimDir, err := rig.RequireShim(*o.shimDir)
	if err != nil {
		return err
	}
	registrations, err := kubelet.Registrations(machine, shimDir)
	if err != nil {
		return err
	}
	node, err := kubelet.Start(ctx, kubelet.Config{
		Machine: machine, ShimDir: shimDir, Layers: o.layers, Cgroup: machine.Name() + "/daemon",
		Handlers: map[string]kubelet.Registration{"numa": registrations["numa"], "runc": registrations["reference"]},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	rows, err := measure(ctx, node, o)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, node.Daemon.Log())
	}
	fmt.Printf("containerd %s, CRI: %d pods at once, each in a user namespace with one container of %d layers; medians of %d rounds\n\n",
		machine.Version, o.pods, o.layers, o.rounds)
	printTable(rows)
	if o.json == "" {
		return nil
	}
	data, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(data, '\n'), 0o644)
}
