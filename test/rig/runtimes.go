package rig

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// The runtimes that demo and benchmarks set side by side.
const (
	OurRuntime  = "io.containerd.numa.v1"
	RuncRuntime = "io.containerd.runc.v2"
)

// ShimDirFlag defines the flag -shim-dir, for ShimDir and RequireShim.
func ShimDirFlag() *string {
	dir := new(string)
	shimDirFlag(dir)
	return dir
}

func shimDirFlag(dir *string) {
	flag.StringVar(dir, "shim-dir", "", "`directory` of the shim binary (default <source>/bin)")
}

// ShimDir is where containerd is to look for shims first: dir or, if that is
// empty, where `make build` puts this project's programs.
func ShimDir(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	module, err := ModuleDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(module), "bin"), nil
}

// RequireShim is ShimDir with our shim in it, or an error that says how to make
// it.
func RequireShim(dir string) (string, error) {
	dir, err := ShimDir(dir)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, ShimBinary(OurRuntime))); err != nil {
		return "", fmt.Errorf("no shim to run: %w (make build makes it)", err)
	}
	return dir, nil
}
