package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxSpecSize bounds config.json, in bytes. containerd's database has a
// smaller limit for the message that holds it.
const maxSpecSize = 16 << 20

// rootfsDir is the directory in a bundle on which containerd expects the root
// filesystem.
const rootfsDir = "rootfs"

// ParseSpec reads a config.json, but for what it has for other systems than
// Linux. encoding/json prepares for every type that a document could hold, and
// keeps that: for the other systems' it took each shim half a millisecond and
// 85 kB, of which it kept 56.
func ParseSpec(data []byte) (*specs.Spec, error) {
	var s struct {
		specs.Spec
		// These hide the fields of the same names.
		Solaris struct{} `json:"solaris"`
		Windows struct{} `json:"windows"`
		VM      struct{} `json:"vm"`
		ZOS     struct{} `json:"zos"`
		FreeBSD struct{} `json:"freebsd"`
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	return &s.Spec, nil
}

// loadSpec reads the bundle's config.json and makes its paths absolute, since
// a shim has one working directory but several bundles.
func loadSpec(bundle string) (*specs.Spec, error) {
	path := filepath.Join(bundle, "config.json")
	data, err := readFile(path, maxSpecSize)
	if err != nil {
		return nil, fmt.Errorf("container spec: %w", err)
	}
	s, err := ParseSpec(data)
	if err != nil {
		return nil, invalid("container spec %s: %v", path, err)
	}
	if err := checkSpec(s); err != nil {
		return nil, invalid("container spec %s: %v", path, err)
	}
	if err := checkNamespaces(s.Linux.Namespaces); err != nil {
		return nil, fmt.Errorf("container spec %s: %w", path, err)
	}
	if !filepath.IsAbs(s.Root.Path) {
		s.Root.Path = filepath.Join(bundle, s.Root.Path)
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		if bind && !filepath.IsAbs(m.Source) {
			m.Source = filepath.Join(bundle, m.Source)
		}
	}
	return s, nil
}

// checkSpec refuses what an engine could only fail on later, and less clearly.
func checkSpec(s *specs.Spec) error {
	switch {
	case s.Root == nil || s.Root.Path == "":
		return errors.New("root.path must be set")
	case s.Linux == nil:
		return errors.New("linux must be set")
	}
	return checkProcess(s.Process)
}

// checkProcess applies the rules of the runtime-spec (config.md, Process).
func checkProcess(p *specs.Process) error {
	switch {
	case p == nil:
		return errors.New("process must be set")
	case p.Cwd == "" || !filepath.IsAbs(p.Cwd):
		return fmt.Errorf("process.cwd %q is not an absolute path", p.Cwd)
	case len(p.Args) == 0:
		return errors.New("process.args must not be empty")
	}
	return nil
}

// readFile reads a whole file of at most limit bytes. It does not wait for the
// writer of a FIFO but refuses it, and directories, of which some have no size.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode()&(os.ModeNamedPipe|os.ModeDir) != 0 {
		return nil, fmt.Errorf("%s: not a file but %s", path, st.Mode().Type())
	}
	if st.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes, more than the %d allowed", path, st.Size(), limit)
	}
	data := make([]byte, st.Size())
	n, err := f.ReadAt(data, 0)
	if err != nil && n < len(data) {
		return nil, err
	}
	return data, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// attachOnHost says why the root filesystem of a container made from s has to
// be attached in the host's mount namespace; "" if it need not.
func attachOnHost(s *specs.Spec) string {
	if h := s.Hooks; h != nil && len(h.CreateRuntime)+len(prestart(h)) > 0 {
		return "its createRuntime hooks look for it there"
	}
	switch s.Linux.RootfsPropagation {
	case "shared", "rshared":
		return "mounts made in it are to reach the host"
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.MountNamespace && ns.Path == "" {
			return ""
		}
	}
	return "the container has no mount namespace of its own"
}

// prestart hooks are deprecated in the runtime-spec but NVIDIA's toolkit, for
// one, still uses them.
func prestart(h *specs.Hooks) []specs.Hook {
	//lint:ignore SA1019 deprecated, and in use
	return h.Prestart
}

// hostIDs are the ids on the host of the container's root.
func hostIDs(s *specs.Spec) owner {
	return owner{uid: hostID(s.Linux.UIDMappings), gid: hostID(s.Linux.GIDMappings)}
}

func hostID(m []specs.LinuxIDMapping) int {
	for _, r := range m {
		if r.ContainerID == 0 && r.Size > 0 {
			return int(r.HostID)
		}
	}
	return 0
}
