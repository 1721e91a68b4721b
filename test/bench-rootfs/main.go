// Command bench-rootfs sets ways to make a container's root filesystem side by
// side: those of package rootfs, and those of containerd before and after
// version 2.2. The host it models has many shims: processes that begin at the
// same moment and make root filesystems in one mount namespace whose mounts
// are shared, as systemd has them. Nothing else of a container is made.
//
// Ways, layers and numbers of processes take turns, so that whatever else the
// machine does meets all alike. It prints tables in Markdown and the verdicts
// on what the project promises, and draws a plot where asked.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"containerd-shim-numa-v1/test/rig"
)

// options are what a run can be told.
type options struct {
	layers   []int
	parallel []int
	plot     string
	disk     bool
	budget   time.Duration
	entries  int
	slaves   int
	gate     bool
}

func main() {
	if os.Getenv(workerEnv) != "" {
		if err := work(); err != nil {
			fmt.Fprintln(os.Stderr, "bench-rootfs worker:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	layers := flag.String("layers", "1,10,50,120,400", "image layers")
	parallel := flag.String("parallel", "1,20,100", "root filesystems at once")
	flag.DurationVar(&o.budget, "time", 4*time.Minute, "for measuring; the largest cases are measured once at least")
	flag.StringVar(&o.plot, "svg", "", "`file` to draw the plot to")
	flag.BoolVar(&o.disk, "disk", false, "layers on the file system of the directory for temporary files instead of a tmpfs")
	flag.IntVar(&o.entries, "entries", 40, "mounts that the host has besides")
	flag.IntVar(&o.slaves, "namespaces", 0, "mount namespaces that receive the host's mounts, as systemd makes for services")
	flag.BoolVar(&o.gate, "gate", false, "fail if a promise is not kept")
	flag.Parse()
	if err := errors.Join(numbers(*layers, &o.layers), numbers(*parallel, &o.parallel)); err != nil {
		fmt.Fprintln(os.Stderr, "bench-rootfs:", err)
		os.Exit(2)
	}
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-rootfs:", err)
		os.Exit(1)
	}
}

func numbers(list string, to *[]int) error {
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a list of positive numbers", list)
		}
		*to = append(*to, n)
	}
	return nil
}

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return rig.ErrNotRoot
	}
	dir, err := rig.Isolate()
	if err != nil {
		return err
	}
	h, err := newHost(dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	fmt.Println(h.describe())

	ways, counts, err := h.count(ctx, o.layers)
	if err != nil {
		return err
	}
	crews := make([]*crew, len(o.parallel))
	for i, n := range o.parallel {
		if crews[i], err = h.newCrew(n); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, crews[i].close()) }()
	}
	r, err := measure(crews, ways, o)
	if err != nil {
		return err
	}
	readers, err := h.suffering(crews, ways, o.layers)
	if err != nil {
		return err
	}
	r.print(ways, counts, readers)
	kept := r.verdicts()
	if o.plot != "" {
		if err := r.draw(o.plot, h); err != nil {
			return err
		}
	}
	if o.gate && !kept {
		return errors.New("not all promises are kept")
	}
	return nil
}
