package vm

import (
	"context"
	"os"
	"path/filepath"
)

// criuSuite has a criu for kernels up to 6.18; bookworm's 3.17 knows the vDSO
// of kernels up to 6.1 only.
const criuSuite = qemuSuite

// criuProgram runs the unpacked criu with the libraries it was unpacked with,
// on whatever machine it is copied to. Its network lock would need iptables
// in the machine: what the tests dump has no connections to the outside.
const criuProgram = `#!/bin/sh
tree=${0%/*}/tree
export CRIU_CONFIG_FILE=${0%/*}/criu.conf
exec $tree/usr/lib64/ld-linux-x86-64.so.2 --library-path $tree/usr/lib/x86_64-linux-gnu $tree/usr/sbin/criu "$@"
`

const criuConfig = "network-lock skip\n"

// CriuDir is the directory in the cache that has the program criu once it is
// fetched; "" if there is no cache. It may be named in PATH, and copied into a
// guest.
func CriuDir() string {
	c, err := openCache()
	if err != nil {
		return ""
	}
	return filepath.Join(c.dir, "criu-"+criuSuite)
}

// FetchCriu has criu in the cache.
func FetchCriu(ctx context.Context) error {
	c, err := openCache()
	if err != nil {
		return err
	}
	dir := CriuDir()
	program := filepath.Join(dir, "criu")
	if exists(program) {
		return nil
	}
	return c.withApt(ctx, func(a *apt) error {
		if exists(program) {
			return nil
		}
		tree := filepath.Join(dir, "tree")
		if !exists(tree) {
			if err := a.unpack(ctx, tree, true, "criu"); err != nil {
				return err
			}
		}
		// The program comes last: it tells that all else is there.
		if err := os.WriteFile(filepath.Join(dir, "criu.conf"), []byte(criuConfig), 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(program+".new", []byte(criuProgram), 0o755); err != nil {
			return err
		}
		return os.Rename(program+".new", program)
	})
}
