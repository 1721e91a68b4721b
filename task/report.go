package task

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/log"

	"containerd-shim-numa-v1/rootfs"
)

// rootfsFile tells in the bundle what the root filesystem took.
const rootfsFile = "rootfs.json"

// rootfsReport is what making a container's root filesystem took, for
// operators. It is in the bundle as long as the container is.
type rootfsReport struct {
	Tier              string `json:"tier"`       // of rootfs.tier; "auto" without an overlay
	SharedBase        bool   `json:"sharedBase"` // on a base that the pod's containers share
	OnHost            bool   `json:"onHost"`     // attached on the host, not by init
	Layers            int    `json:"layers"`     // that were named to the kernel
	Mounts            int    `json:"mounts"`     // file systems mounted
	Clones            int    `json:"clones"`     // mounts cloned
	HostOperations    int    `json:"hostMountOperations"`
	PrivateOperations int    `json:"privateMountOperations"` // in a mount namespace that nobody else sees
	Syscalls          int    `json:"syscalls"`
	Microseconds      int64  `json:"microseconds"`              // all of it
	UserNSTime        int64  `json:"userNamespaceMicroseconds"` // the part for user namespaces
}

func newRootfsReport(s rootfs.Stats, onHost bool) rootfsReport {
	return rootfsReport{
		Tier: s.Tier.String(), SharedBase: s.Base, OnHost: onHost, Layers: s.Layers, Mounts: s.Mounts, Clones: s.Clones,
		HostOperations: s.Attached, PrivateOperations: s.Private, Syscalls: s.Syscalls,
		Microseconds: s.Duration.Microseconds(), UserNSTime: s.UserNS.Microseconds(),
	}
}

// reportRootfs logs the report and leaves it in the bundle. A container
// without it is worth more than none. It is written in place, for it is written
// once and what follows does not depend on it: three system calls.
func (c *Container) reportRootfs(s rootfs.Stats) {
	r := newRootfsReport(s, c.hostRootfs)
	c.log().WithFields(log.Fields{
		"tier": r.Tier, "base": r.SharedBase, "layers": r.Layers, "mounts": r.Mounts, "clones": r.Clones,
		"attached": r.HostOperations, "private": r.PrivateOperations, "syscalls": r.Syscalls,
		"took": s.Duration, "userns": s.UserNS.Round(time.Microsecond),
	}).Debug("root filesystem assembled")
	data, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.bundle, rootfsFile), data, 0o600)
	}
	if err != nil {
		c.log().WithError(err).Warn("cannot save what the root filesystem took")
	}
}
