package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/log"
	"google.golang.org/protobuf/types/known/anypb"

	"containerd-shim-numa-v1/shim"
	"containerd-shim-numa-v1/task"
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
		Info:        func(_ context.Context, o *anypb.Any) (*types.RuntimeInfo, error) { return info(version, revision, o) },
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
	return task.NewService(task.Config{
		Namespace: d.Namespace,
		Node:      settings,
		Engine:    native.Engine{},
		Publisher: d.Publisher,
		Shutdown:  d.Shutdown,
	}), nil
}

// remove is the delete command for one container.
func remove(ctx context.Context, t shim.Target) (shim.Exit, error) {
	pid, exit, err := task.Cleanup(ctx, native.Engine{}, t.Namespace, t.ID, t.Bundle)
	return shim.Exit{Pid: uint32(pid), Status: exit.Status, At: exit.At}, err
}

// featuresType is the name under which containerd knows the features of the
// runtime-spec; their value is JSON.
const featuresType = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"

// info answers -info.
func info(version, revision string, options *anypb.Any) (*types.RuntimeInfo, error) {
	features, err := json.Marshal(native.Features())
	if err != nil {
		return nil, fmt.Errorf("features: %w", err)
	}
	return &types.RuntimeInfo{
		Name:     runtimeName,
		Version:  &types.RuntimeVersion{Version: version, Revision: revision},
		Options:  options,
		Features: &anypb.Any{TypeUrl: featuresType, Value: features},

		Annotations: shim.ClaimsAnnotation(mountClaims()),
	}, nil
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
