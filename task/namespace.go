package task

import (
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ownMountNamespace is that of the calling process: the host's.
const ownMountNamespace = "/proc/self/ns/mnt"

// namespaceKinds are the types of the runtime-spec and what NS_GET_NSTYPE says
// of them (ioctl_nsfs(2), Linux 4.11).
var namespaceKinds = map[specs.LinuxNamespaceType]int{
	specs.PIDNamespace:     unix.CLONE_NEWPID,
	specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.MountNamespace:   unix.CLONE_NEWNS,
	specs.IPCNamespace:     unix.CLONE_NEWIPC,
	specs.UTSNamespace:     unix.CLONE_NEWUTS,
	specs.UserNamespace:    unix.CLONE_NEWUSER,
	specs.CgroupNamespace:  unix.CLONE_NEWCGROUP,
	specs.TimeNamespace:    unix.CLONE_NEWTIME,
}

// checkNamespaces looks at the namespaces that a container is to join. An
// engine would tell of a wrong one as "Invalid argument", and wait for ever to
// open a FIFO.
func checkNamespaces(namespaces []specs.LinuxNamespace) error {
	for _, ns := range namespaces {
		if ns.Path == "" {
			continue
		}
		if err := checkNamespace(ns); err != nil {
			return fmt.Errorf("%s namespace %s: %w", ns.Type, ns.Path, err)
		}
	}
	return nil
}

func checkNamespace(ns specs.LinuxNamespace) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(ns.Path, &fs); err != nil {
		return err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return errors.New("there is no namespace (any more)")
	}
	f, err := os.Open(ns.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	want, known := namespaceKinds[ns.Type]
	if kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); known && err == nil && kind != want {
		return errors.New("it is a namespace of another type")
	}
	if ns.Type != specs.MountNamespace {
		return nil
	}
	there, err := f.Stat()
	if err != nil {
		return err
	}
	own, err := os.Stat(ownMountNamespace)
	if err != nil {
		return err
	}
	if os.SameFile(own, there) {
		// To pivot there is to change the root of every process of the host.
		return errors.New("it is the host's, whose root directory the container's would replace")
	}
	return nil
}
