package memory

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa/cpuset"
)

// Mode is a memory policy of set_mempolicy(2), without flags.
type Mode int

// The modes that a placement may use. Each needs nodes.
const (
	// Preferred takes memory from one node while it has some.
	Preferred Mode = unix.MPOL_PREFERRED
	// PreferredMany does so from several nodes. Since Linux 5.15.
	PreferredMany Mode = unix.MPOL_PREFERRED_MANY
	// Bind takes memory from the nodes only.
	Bind Mode = unix.MPOL_BIND
	// Interleave takes pages from the nodes in turn.
	Interleave Mode = unix.MPOL_INTERLEAVE
)

// String is the mode's name in the runtime-spec, config-linux.md.
func (m Mode) String() string {
	switch m {
	case Preferred:
		return "MPOL_PREFERRED"
	case PreferredMany:
		return "MPOL_PREFERRED_MANY"
	case Bind:
		return "MPOL_BIND"
	case Interleave:
		return "MPOL_INTERLEAVE"
	default:
		return fmt.Sprintf("mode %d", int(m))
	}
}

// maxNodes is more than any kernel has (CONFIG_NODES_SHIFT is at most 10), and
// what fits into unix.CPUSet and libcontainer's policies.
const maxNodes = 1024

// Probe tells whether the kernel accepts the policy for the nodes: a container
// whose policy it refuses does not start. The error wraps the kernel's:
// unix.EINVAL for a mode it does not know, or if the caller may use none of the
// nodes.
//
// The kernel intersects the nodes with those of the caller's own cpuset. That a
// container's cpuset has one of them is for the caller to see to.
func Probe(mode Mode, nodes cpuset.Set) error {
	if nodes.IsEmpty() || nodes.Max() >= maxNodes {
		return fmt.Errorf("probe %s on nodes %q: no nodes, or none of a kernel's: %w", mode, nodes, unix.EINVAL)
	}
	var mask unix.CPUSet
	for node := range nodes.All() {
		mask.Set(node)
	}
	result := make(chan error)
	go func() {
		// A policy is of one thread. Never unlocked, it ends with the
		// goroutine, so that nothing else ever runs under it.
		runtime.LockOSThread()
		result <- os.NewSyscallError("set_mempolicy", unix.SetMemPolicy(int(mode), &mask))
	}()
	if err := <-result; err != nil {
		return fmt.Errorf("probe %s on nodes %s: %w", mode, nodes, err)
	}
	return nil
}
