package native

import (
	"context"
	"fmt"

	"github.com/opencontainers/runc/libcontainer"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

var (
	_ task.Checkpointer = (*instance)(nil)
	_ task.Restorer     = Engine{}
)

// noStatusFD tells libcontainer that nobody wants to hear of criu's progress;
// the zero value would be the shim's standard input.
const noStatusFD = -1

// Checkpoint has criu, which it looks for in PATH, write the container's
// processes. A root filesystem that is attached in the container alone is as
// good as any other: criu looks at it from within.
func (i *instance) Checkpoint(_ context.Context, r task.CheckpointRequest) error {
	empty, err := emptyNamespaces(r.EmptyNamespaces)
	if err != nil {
		return fmt.Errorf("runc checkpoint failed: %w", err)
	}
	container, err := i.load()
	if err != nil {
		return fmt.Errorf("runc checkpoint failed: %w", err)
	}
	err = container.Checkpoint(&libcontainer.CriuOpts{
		ImagesDirectory: r.Images, WorkDirectory: r.Work, ParentImage: r.Parent,
		LeaveRunning: r.LeaveRunning, TcpEstablished: r.OpenTCP,
		ExternalUnixConnections: r.ExternalUnixSockets, ShellJob: r.Terminal, FileLocks: r.FileLocks,
		EmptyNs: empty, ManageCgroupsMode: r.CgroupsMode, StatusFd: noStatusFD,
	})
	if err != nil {
		return fmt.Errorf("runc checkpoint failed: %w", err)
	}
	return nil
}

// emptyNamespaces is criu's mask of the namespaces named. As of criu 4 it is
// only the network that it can leave out.
func emptyNamespaces(names []string) (mask uint32, err error) {
	for _, name := range names {
		if specs.LinuxNamespaceType(name) != specs.NetworkNamespace {
			return 0, fmt.Errorf("namespace %q cannot be left empty, only %q can", name, specs.NetworkNamespace)
		}
		mask |= unix.CLONE_NEWNET
	}
	return mask, nil
}
