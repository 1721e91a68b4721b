// Command bench sets runtimes side by side under one containerd: wall time and
// CPU time of a container's life, one at a time and many at once, and the
// memory of an idle shim. Rounds alternate between the runtimes, so that
// whatever else the machine does meets all alike. It prints a table with
// ratios to the last runtime named, and JSON where asked.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	containerd "github.com/containerd/containerd/v2/client"

	"containerd-shim-numa-v1/test/rig"
)

// options are what a run can be told.
type options struct {
	runtimes   []string
	serial     int // containers one after another
	parallel   int // containers at once
	rounds     int // rounds of those
	idle       int // idle shims to measure
	layers     int
	shimDir    *string
	json       string
	containerd string
}

func main() {
	var o options
	runtimes := flag.String("runtimes", rig.OurRuntime+","+rig.RuncRuntime, "runtime types, each with settings after a + if need be; the last is what ratios are to")
	flag.IntVar(&o.serial, "serial", 30, "containers one after another, of each runtime and kind")
	flag.IntVar(&o.parallel, "parallel", 20, "containers at once")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of containers at once")
	flag.IntVar(&o.idle, "idle", 5, "idle shims to measure")
	flag.IntVar(&o.layers, "layers", 50, "layers of the many-layered image")
	o.shimDir = rig.ShimDirFlag()
	flag.StringVar(&o.json, "json", "", "`file` to write the results to, as JSON")
	flag.StringVar(&o.containerd, "containerd", "2", "containerd `version`: 2 or 1.7")
	flag.Parse()
	o.runtimes = strings.Split(*runtimes, ",")
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one benchmark's containerd and images.
type bench struct {
	options
	daemon *rig.Daemon
	plain  containerd.Image
	deep   containerd.Image
	made   int // containers so far, to number them
}

func run(ctx context.Context, o options) (err error) {
	find := rig.ShimDir
	for _, r := range o.runtimes {
		if name, _ := withOptions(r); name == rig.OurRuntime {
			find = rig.RequireShim
		}
	}
	shimDir, err := find(*o.shimDir)
	if err != nil {
		return err
	}
	machine, err := rig.Enter(ctx, o.containerd)
	if err != nil {
		return err
	}
	daemon, err := rig.StartDaemon(ctx, rig.DaemonConfig{Machine: machine, ShimDir: shimDir, Cgroup: machine.Name() + "/daemon"})
	if err != nil {
		return err
	}
	defer daemon.Close()
	b := &bench{options: o, daemon: daemon}
	if err := b.importImages(ctx, machine); err != nil {
		return err
	}
	rows, err := b.measure(ctx)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, daemon.Log())
	}
	fmt.Printf("containerd %s, %d layers where many, %d in a row, %d rounds of %d at once\n\n", machine.Version, o.layers, o.serial, o.rounds, o.parallel)
	printTable(o.runtimes, rows)
	if o.json == "" {
		return nil
	}
	data, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(data, '\n'), 0o644)
}

// withOptions takes a runtime apart: its type and, as its options, the settings
// in TOML that may follow a "+".
func withOptions(runtime string) (name string, options any) {
	name, toml, ok := strings.Cut(runtime, "+")
	if !ok {
		return name, nil
	}
	return name, &runtimeoptions.Options{ConfigBody: []byte(toml)}
}

// binary is the file name of a runtime's shim.
func binary(runtime string) string {
	name, _ := withOptions(runtime)
	return rig.ShimBinary(name)
}

func (b *bench) importImages(ctx context.Context, machine *rig.Machine) error {
	base, err := machine.BaseLayer()
	if err != nil {
		return err
	}
	if b.plain, err = b.daemon.ImportImage(ctx, "bench.test/plain:1", []rig.Layer{base}); err != nil {
		return err
	}
	layers, _ := rig.LayeredImage(base, b.layers-1)
	b.deep, err = b.daemon.ImportImage(ctx, "bench.test/deep:1", layers)
	return err
}
