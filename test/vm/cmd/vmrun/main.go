// Command vmrun runs one command in a guest, prints what it prints and exits
// with its exit status. A guest that does not boot ends it with status 125.
//
//	go run ./vm/cmd/vmrun -kernel 6.1 -dir bin -- ./rootfs.test -test.v
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"containerd-shim-numa-v1/test/vm"
)

// exitNoGuest is the exit status for a guest that gave none, as of programs
// that run programs, see chroot(1).
const exitNoGuest = 125

// data is where directories given by -dir end up in the guest.
const data = "/data"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmrun:", err)
		code = exitNoGuest
	}
	os.Exit(code)
}

func run(ctx context.Context) (code int, err error) {
	b := vm.Boot{Files: make(map[string]string), Stdout: os.Stdout, Dir: data}
	flag.StringVar(&b.Kernel, "kernel", "6.12", "`series` of Debian's kernels")
	flag.IntVar(&b.Memory, "memory", vm.DefaultMemory, "memory in `MiB`")
	flag.IntVar(&b.Topology.Sockets, "sockets", 1, "sockets, a NUMA node each")
	flag.IntVar(&b.Topology.Cores, "cores", 2, "cores per socket")
	flag.IntVar(&b.Topology.Threads, "threads", 1, "threads per core")
	flag.BoolVar(&b.CgroupV1, "cgroup-v1", false, "cgroup v1 controllers, in the hybrid layout")
	flag.DurationVar(&b.Timeout, "timeout", vm.DefaultTimeout, "for the command")
	flag.StringVar(&b.Out, "out", "", "host `directory` that receives the guest's /out")
	flag.Func("dir", "host `directory` whose contents the guest finds in "+data+", [path=]directory for another path; repeatable", func(s string) error {
		target, source, ok := strings.Cut(s, "=")
		if !ok {
			target, source = data, s
		}
		b.Files[target] = source
		return nil
	})
	flag.Func("program", "host `program` to copy with its libraries; repeatable", func(s string) error {
		b.Programs = append(b.Programs, s)
		return nil
	})
	flag.Func("env", "`name=value` for the command; repeatable", func(s string) error {
		b.Env = append(b.Env, s)
		return nil
	})
	update := flag.Bool("update", false, "look for a newer kernel of the series first")
	verbose := flag.Bool("v", false, "print the console and times")
	flag.Parse()
	b.Command = flag.Args()
	if len(b.Command) == 0 {
		flag.Usage()
		return 0, errors.New("no command")
	}
	if len(b.Files) == 0 {
		b.Dir = "/"
	}
	if *update {
		if _, err := vm.Fetch(ctx, b.Kernel); err != nil {
			return 0, err
		}
	}
	r, err := b.Run(ctx)
	if *verbose {
		fmt.Fprintf(os.Stderr, "%svmrun: kernel %s: command started after %s, %s from start to power-off, boots: %d\n",
			r.Console, r.Release, r.Uptime, r.Wall, r.Attempts)
	}
	return r.ExitCode, err
}
