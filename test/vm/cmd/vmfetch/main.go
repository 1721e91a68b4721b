// Command vmfetch installs QEMU and kernels of the series given into the
// cache. Where it fails no guest can be had; once it has succeeded, one that
// does not boot is an error.
//
//	go run ./vm/cmd/vmfetch 6.1 6.12
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"containerd-shim-numa-v1/test/vm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, series := range os.Args[1:] {
		if err := vm.Install(ctx, series); err != nil {
			fmt.Fprintln(os.Stderr, "vmfetch:", err)
			os.Exit(1)
		}
	}
}
