// Command rigbuild builds the programs that the tests run, containerd, ctr,
// the runc shim and runc, for every pinned containerd version, into the
// cache. The tests do it themselves when needed; this does it ahead.
package main

import (
	"context"
	"fmt"
	"os"

	"containerd-shim-numa-v1/test/rig"
)

func main() {
	for _, version := range rig.Versions {
		tools, err := rig.Build(context.Background(), version)
		if err != nil {
			fmt.Fprintln(os.Stderr, "rigbuild:", err)
			os.Exit(1)
		}
		fmt.Printf("containerd %s: %s\n", tools.Version, tools.Containerd)
	}
}
