package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/log"
	"google.golang.org/protobuf/types/known/anypb"

	"containerd-shim-numa-v1/numa/ledger"
	"containerd-shim-numa-v1/shim"
	"containerd-shim-numa-v1/task"
	"containerd-shim-numa-v1/task/external"
	"containerd-shim-numa-v1/task/native"
)

// runtimeName is the runtime's type, from which containerd derives the name
// of this binary.
const runtimeName = "io.containerd.numa.v1"

func main() {
	version, revision := buildVersion()
	os.Exit(shim.Run(context.Background(), shim.Runtime{
		Name:        runtimeName,
		Version:     version,
		Revision:    revision,
		VersionText: "libcontainer: " + native.LibcontainerVersion(),
		Info: func(ctx context.Context, o *anypb.Any) (*types.RuntimeInfo, error) {
			return info(ctx, version, revision, o)
		},
		MountClaims: mountClaims,
		Serve:       serve,
		Delete:      remove,
	}))
}

// serve makes the Task service of a daemon.
func serve(ctx context.Context, d shim.Daemon) (shim.Service, error) {
	settings, err := task.ReadSettings(task.SettingsPath)
	if err != nil {
		// A node whose settings cannot be read still runs its containers.
		log.G(ctx).WithError(err).Error("the defaults are in force")
	}
	wake := make(chan os.Signal, 1)
	signal.Notify(wake, ledger.WakeSignal)
	return task.NewService(task.Config{
		Namespace: d.Namespace,
		Node:      settings,
		Engine:    native.Engine{},
		External:  func(binary string) (task.Engine, error) { return external.New(binary, native.RemoveEmptyCgroup) },
		Publisher: d.Publisher,
		Wake:      wake,
		Shutdown:  d.Shutdown,
	}), nil
}

// remove is the delete command for one container.
func remove(ctx context.Context, t shim.Target) (shim.Exit, error) {
	removers := task.Removers{
		Own: native.Engine{},
		External: func(binary string) task.Remover {
			return external.Remover{Binary: binary, RemoveCgroup: native.RemoveCgroup}
		},
	}
	pid, exit, err := task.Cleanup(ctx, removers, t.Namespace, t.ID, t.Bundle)
	return shim.Exit{Pid: uint32(pid), Status: exit.Status, At: exit.At}, err
}

// featuresType is the name under which containerd knows the features of the
// runtime-spec; their value is JSON.
const featuresType = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"

// info answers -info.
func info(ctx context.Context, version, revision string, options *anypb.Any) (*types.RuntimeInfo, error) {
	features, err := featuresOf(ctx, options)
	if err != nil {
		return nil, err
	}
	return &types.RuntimeInfo{
		Name:     runtimeName,
		Version:  &types.RuntimeVersion{Version: version, Revision: revision},
		Options:  options,
		Features: features,

		Annotations: shim.ClaimsAnnotation(mountClaims()),
	}, nil
}

// featuresOf are the features of the engine that options ask for. nil if an
// OCI runtime does not tell its own: containerd then assumes none.
func featuresOf(ctx context.Context, options *anypb.Any) (*anypb.Any, error) {
	settings, err := task.ReadSettings(task.SettingsPath)
	if err != nil {
		settings = task.Settings{} // as the daemon, which logs it
	}
	binary, err := settings.RuntimeBinary(options)
	if err != nil {
		return nil, err
	}
	features := native.Features()
	if binary != "" {
		if features, err = external.Features(ctx, binary); err != nil {
			return nil, nil
		}
	}
	data, err := json.Marshal(features)
	if err != nil {
		return nil, fmt.Errorf("features: %w", err)
	}
	return &anypb.Any{TypeUrl: featuresType, Value: data}, nil
}

// mountClaims are the mounts that this node's settings claim: none if they
// cannot be read, which the daemon logs.
func mountClaims() (mountTypes, transforms []string) {
	settings, err := task.ReadSettings(task.SettingsPath)
	if err != nil {
		return nil, nil
	}
	return settings.MountClaims()
}

// buildVersion is what the go command noted about this build.
func buildVersion() (version, revision string) {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", ""
	}
	for _, s := range b.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return b.Main.Version, revision
}
