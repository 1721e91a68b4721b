package rootfs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrUnsupported means that the kernel lacks, or may lack, a feature that
	// a detached tree needs. The same mounts may work when made another way.
	ErrUnsupported = errors.New("not supported by this kernel's mount API")

	// ErrNeedsPath means that a mount cannot be made detached on any kernel:
	// it must be mounted at a path.
	ErrNeedsPath = errors.New("needs a mount point in a mount namespace")

	// ErrInvalid means that a mount, option or mapping is malformed or
	// contradicts itself. Nothing was tried.
	ErrInvalid = errors.New("invalid mount")
)

// MountError says which step of which mount failed and why.
type MountError struct {
	Op     string // system call or step, such as "fsconfig"
	Type   string // file system type of the mount
	Source string // as given in the mount
	Target string // below the tree's root; "" or "/" is the root itself
	Option string // option or path that the step was about; may be empty
	Log    string // what the kernel's file system context said; may be empty
	Kind   error  // ErrUnsupported, ErrNeedsPath, ErrInvalid or nil
	Err    error  // cause
}

// Error names the operation, both ends, and the reason.
func (e *MountError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mount %s %q on %q of the root filesystem: %s", e.Type, e.Source, "/"+strings.TrimPrefix(e.Target, "/"), e.Op)
	if e.Option != "" {
		fmt.Fprintf(&b, " %s", e.Option)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Log != "" {
		fmt.Fprintf(&b, " (kernel: %s)", e.Log)
	}
	if e.Kind != nil {
		fmt.Fprintf(&b, ": %v", e.Kind)
	}
	return b.String()
}

// Unwrap gives the cause and the kind to errors.Is and errors.As.
func (e *MountError) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Err, e.Kind} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// fail wraps the failure of a step of this mount. A system call that the
// kernel does not have makes it ErrUnsupported.
func (m Mount) fail(op, option string, err error) *MountError {
	e := &MountError{Op: op, Type: m.Type, Source: m.Source, Target: m.Target, Option: option, Err: err}
	if errors.Is(err, unix.ENOSYS) {
		e.Kind = ErrUnsupported
	}
	return e
}

// invalid reports that the mount itself is wrong.
func (m Mount) invalid(option, format string, args ...any) *MountError {
	e := m.fail("check", option, fmt.Errorf(format, args...))
	e.Kind = ErrInvalid
	return e
}

// unsupported reports that another way to mount may work.
func (m Mount) unsupported(op, option string, err error) *MountError {
	e := m.fail(op, option, err)
	e.Kind = ErrUnsupported
	return e
}

// needsPath reports that the mount cannot be made detached.
func (m Mount) needsPath(reason string) *MountError {
	e := m.fail("check", "", errors.New(reason))
	e.Kind = ErrNeedsPath
	return e
}
