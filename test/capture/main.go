// Command capture prints this machine as a text for numa/machines/sys: what the shim
// reads of /sys, and nothing that tells whose machine it is.
package main

import (
	"fmt"
	"os"

	"containerd-shim-numa-v1/numa/machines"
)

func main() {
	if err := machines.Capture(os.DirFS("/sys"), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
