package rig

import (
	"fmt"
	"os"
	"path/filepath"
)

// The runtimes that demo and benchmarks set side by side.
const (
	OurRuntime  = "io.containerd.numa.v1"
	RuncRuntime = "io.containerd.runc.v2"
)

// ShimDir is where `make build` puts this project's programs.
func ShimDir() (string, error) {
	module, err := ModuleDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(module), "bin"), nil
}

// RequireShim finds our shim's binary in dir, or says how to make it.
func RequireShim(dir string) error {
	path := filepath.Join(dir, ShimBinary(OurRuntime))
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("no shim to run: %w (make build makes it)", err)
	}
	return nil
}
