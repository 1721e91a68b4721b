package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Tier is a way to mount an overlay. Each gives the same container, in a
// number of mount-table operations that does not depend on its layers.
type Tier int

const (
	// Auto takes the first of the others that the kernel can do.
	Auto Tier = iota
	// Detached: layers are opened through a detached clone (Linux 6.15).
	Detached
	// Descriptors: layers are given by descriptor, from a clone attached in a
	// private mount namespace (Linux 6.13).
	Descriptors
	// Names: layers are given one by one by name, there (Linux 6.7).
	Names
	// OptionString: one mount(2) there (Linux 5.14; with an ID mapping 5.19).
	OptionString
	// Host: one mount(2) in the caller's mount namespace, on Options.Target.
	Host
)

// tierNames are the words of a configuration, by Tier.
var tierNames = [...]string{"auto", "detached", "descriptors", "names", "options", "host"}

func (t Tier) String() string {
	if t < 0 || int(t) >= len(tierNames) {
		return fmt.Sprintf("tier(%d)", int(t))
	}
	return tierNames[t]
}

// ParseTier takes the word that [Tier.String] gives. Its errors match
// [ErrInvalid].
func ParseTier(s string) (Tier, error) {
	if i := slices.Index(tierNames[:], s); i >= 0 {
		return Tier(i), nil
	}
	return Auto, fmt.Errorf("tier %q is none of %q: %w", s, tierNames, ErrInvalid)
}

// mountOverlay makes an overlay in the tier asked for, or in the first that
// works. A tier is tried at once; only when it fails as on a kernel that lacks
// it, the kernel is asked whether it does. So a current kernel is asked
// nothing, and an error with another cause is not blamed on the kernel. The
// result is -1 for a mount that was attached on the host.
func (a *assembly) mountOverlay(r *request) (int, error) {
	if r.refers {
		r.overlay.split()
		return a.overlayOfMounts(r)
	}
	if a.options.Tier != Auto {
		return a.overlayIn(a.options.Tier, r)
	}
	var failed error
	for tier := Detached; tier < Host; tier++ {
		if a.workshop.lacks(tier) {
			continue
		}
		fd, err := a.overlayIn(tier, r)
		if err == nil || !errors.Is(err, ErrUnsupported) {
			return fd, err
		}
		failed = err
		if errors.Is(err, errNoNamespace) {
			break
		}
		if can, probeErr := a.workshop.probe(tier); can && probeErr == nil {
			var e *MountError
			if errors.As(err, &e) {
				e.Kind = nil // the kernel has it: the cause is another
			}
			return -1, err
		}
	}
	if a.options.Target == "" {
		if failed == nil {
			failed = r.unsupported("choose a way to mount", "", errors.New("none that needs no mount point works on this kernel"))
		}
		return -1, failed
	}
	return a.overlayIn(Host, r)
}

func (a *assembly) overlayIn(tier Tier, r *request) (fd int, err error) {
	if tier != Detached {
		r.overlay.split()
	}
	switch tier {
	case Detached:
		fd, err = a.overlayFromBase(r)
	case Descriptors, Names, OptionString:
		fd, err = a.overlayPrivately(r, tier)
	case Host:
		fd, err = -1, a.overlayOnHost(r)
	default:
		return -1, r.invalid("", "no such tier: %v", tier)
	}
	if err != nil {
		return -1, r.explain(err)
	}
	a.stats.Tier = max(a.stats.Tier, tier)
	return fd, nil
}

// explain says what overlayfs says in the kernel's ring buffer only.
func (r *request) explain(err error) error {
	var e *MountError
	if !errors.As(err, &e) {
		return err
	}
	dirty := filepath.Join(r.overlay.work, "work", "incompat", "volatile")
	_, statErr := os.Lstat(dirty)
	var upper unix.Statfs_t
	upperErr := unix.Statfs(r.overlay.upper, &upper)
	switch {
	case errors.Is(e.Err, unix.EINVAL) && r.overlay.work != "" && statErr == nil:
		e.Err = fmt.Errorf("%w: %s is left from a volatile mount that may have lost writes", e.Err, dirty)
		e.Kind = nil
	case errors.Is(e.Err, unix.EINVAL) && e.Log == "" && upperErr == nil && upper.Flags&unix.ST_RDONLY != 0:
		e.Err = fmt.Errorf("%w: upperdir %s is read-only", e.Err, r.overlay.upper)
		e.Kind = nil
	case errors.Is(e.Err, unix.EBUSY):
		e.Err = fmt.Errorf("%w: another overlay uses the upper or work directory", e.Err)
	}
	return err
}

// probe asks the kernel whether it has what a tier needs. Neither an error nor
// "cannot" stands for the other: the error is for an unclear answer.
func (w *Workshop) probe(tier Tier) (can bool, err error) {
	var c calls
	switch tier {
	case Detached:
		err = c.probeDetached()
	case Descriptors:
		err = c.probeDescriptors()
	case Names:
		err = c.probeNames()
	default:
		return true, nil // mount(2) is there
	}
	switch {
	case err == nil:
		return true, nil
	case slices.ContainsFunc([]error{unix.EINVAL, unix.EBADF, unix.EOPNOTSUPP, unix.ENOSYS}, func(no error) bool { return errors.Is(err, no) }):
		w.remember(tier)
		return false, nil
	}
	return false, err
}

// probeDetached mounts a read-only overlay of two directories of a detached
// tmpfs.
func (c *calls) probeDetached() error {
	fs, err := c.fsopen("tmpfs")
	if err != nil {
		return err
	}
	defer c.close(fs)
	if err := c.create(fs); err != nil {
		return err
	}
	mount, err := c.fsmount(fs, 0)
	if err != nil {
		return err
	}
	defer c.close(mount)
	overlay, err := c.fsopen("overlay")
	if err != nil {
		return err
	}
	defer c.close(overlay)
	for _, name := range []string{"1", "2"} {
		if err := c.do(func() error { return unix.Mkdirat(mount, name, 0o700) }); err != nil {
			return err
		}
		layer, err := c.openDir(mount, name, resolveLayer)
		if err != nil {
			return err
		}
		defer c.close(layer)
		if err := c.setFD(overlay, "lowerdir+", layer); err != nil {
			return err
		}
	}
	return c.create(overlay)
}

func (c *calls) probeDescriptors() error {
	overlay, err := c.fsopen("overlay")
	if err != nil {
		return err
	}
	defer c.close(overlay)
	dir, err := c.open(unix.AT_FDCWD, "/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer c.close(dir)
	return c.setFD(overlay, "lowerdir+", dir)
}

// probeNames looks out for kernels (before 6.5) that accept any parameter and
// parse it later.
func (c *calls) probeNames() error {
	overlay, err := c.fsopen("overlay")
	if err != nil {
		return err
	}
	defer c.close(overlay)
	if err := c.setString(overlay, "no-such-parameter", "x"); err == nil {
		return unix.EINVAL
	}
	return c.setString(overlay, "lowerdir+", "/")
}
