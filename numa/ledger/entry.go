package ledger

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"containerd-shim-numa-v1/numa"
)

// Entry is one line of the ledger: a container or a pod's sandbox.
type Entry struct {
	// Bundle is the absolute path of its bundle, which names it among all
	// containerds of the host.
	Bundle string
	numa.Claim
	// Owner is the shim; Init the container's first process, zero until
	// Confirm. The entry counts as long as either lives.
	Owner, Init Process
}

const (
	// maxPath is PATH_MAX of Linux, in bytes.
	maxPath = 4096
	// maxPod is far more than a pod's UID or a sandbox's id has, in bytes.
	maxPod = 512
)

// check refuses what could not be written and read again.
func (e *Entry) check() error {
	switch {
	case e.Owner.Pid <= 0:
		return errors.New("claim without an owner")
	case e.Init.Pid < 0:
		return fmt.Errorf("claim with init's pid %d", e.Init.Pid)
	case e.Milli < 0 || e.Width < 0 || e.Bytes < 0:
		return fmt.Errorf("claim of %d mCPU, %d CPUs, %d bytes", e.Milli, e.Width, e.Bytes)
	case len(e.Pod) > maxPod:
		return fmt.Errorf("pod's name has %d bytes, the limit is %d", len(e.Pod), maxPod)
	}
	return checkBundle(e.Bundle)
}

// checkBundle wants the one spelling of a path <root>/<namespace>/<id>.
func checkBundle(bundle string) error {
	switch {
	case len(bundle) > maxPath:
		return fmt.Errorf("bundle's path has %d bytes, the limit is %d", len(bundle), maxPath)
	case !filepath.IsAbs(bundle) || !isClean(bundle) || strings.IndexByte(bundle, 0) >= 0:
		return fmt.Errorf("bundle %q is not an absolute, clean path", bundle)
	}
	return nil
}

// isClean is asked for every row that is read. What cannot be unclean, having
// no slash before a slash, a dot or the end, is not given to Clean.
func isClean(path string) bool {
	for i := range len(path) {
		if path[i] == '/' && (i+1 == len(path) || path[i+1] == '/' || path[i+1] == '.') {
			return filepath.Clean(path) == path
		}
	}
	return true
}
