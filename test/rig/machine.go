package rig

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// ErrNotRoot says that the program may not make namespaces and mounts.
var ErrNotRoot = errors.New("needs root: it mounts, makes cgroups and runs containerd")

// Machine is the isolated place a program continues in after Enter.
type Machine struct {
	Tools
	Dir     string // working directory, removed when the program ends
	Payload string // program to run inside containers; also a binary:// logger
}

// Name is unique to this run. As a containerd namespace it appears in every
// cgroup path, bundle path and runtime state path of the run.
func (m *Machine) Name() string { return filepath.Base(m.Dir) }

// Enter builds what the containerd version needs, then isolates the calling
// program (see Isolate) with further namespaces. It returns ErrNotRoot where
// that is not possible.
func Enter(ctx context.Context, version string, namespaces ...uintptr) (*Machine, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	// Built before isolation: name resolution may go through a socket in the
	// host's /run. Inside, everything is found in the cache.
	tools, err := Build(ctx, version)
	if err != nil {
		return nil, err
	}
	dir, err := Isolate(namespaces...)
	if err != nil {
		return nil, err
	}
	payload, err := buildPayload(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &Machine{Tools: *tools, Dir: dir, Payload: payload}, nil
}
