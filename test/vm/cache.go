package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A kernel is one of Debian's, unpacked.
type kernel struct {
	release string // as uname -r, e.g. "6.12.117+deb13-cloud-amd64"
	dir     string // the packages' tree
}

// Fetch looks for a kernel of the series ("6.12") newer than the one in the
// cache, unpacks it there and returns its release. Run does this only for a
// series that the cache lacks.
func Fetch(ctx context.Context, series string) (release string, err error) {
	c, err := openCache()
	if err != nil {
		return "", err
	}
	k, err := c.fetchKernel(ctx, series)
	return k.release, err
}

// Install makes sure that QEMU and a kernel of the series are in the cache. It
// fails where they cannot be had from Debian's archive.
func Install(ctx context.Context, series string) error {
	c, err := openCache()
	if err != nil {
		return err
	}
	if _, err := c.qemu(ctx); err != nil {
		return fmt.Errorf("install QEMU: %w", err)
	}
	if _, err := c.kernel(ctx, series); err != nil {
		return fmt.Errorf("install a kernel %s: %w", series, err)
	}
	return nil
}

// cache is where kernels and QEMU are kept, in
// $XDG_CACHE_HOME/containerd-shim-numa or ~/.cache/containerd-shim-numa.
type cache struct {
	dir string
}

func openCache() (cache, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return cache{}, fmt.Errorf("find cache directory: %w", err)
	}
	c := cache{filepath.Join(dir, "containerd-shim-numa")}
	return c, os.MkdirAll(c.kernels(), 0o755)
}

func (c cache) kernels() string { return filepath.Join(c.dir, "kernels") }

// withApt calls use while no other process uses the private apt root.
func (c cache) withApt(ctx context.Context, use func(*apt) error) error {
	lock, err := os.OpenFile(filepath.Join(c.dir, "apt.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	a, err := openApt(ctx, filepath.Join(c.dir, "apt"))
	if err != nil {
		return err
	}
	return use(a)
}

// kernel returns the newest kernel of the series in the cache, or fetches one.
func (c cache) kernel(ctx context.Context, series string) (kernel, error) {
	entries, err := os.ReadDir(c.kernels())
	if err != nil {
		return kernel{}, err
	}
	var releases []string
	for _, e := range entries {
		releases = append(releases, e.Name())
	}
	if release := newest(series, releases); release != "" {
		return kernel{release, filepath.Join(c.kernels(), release)}, nil
	}
	return c.fetchKernel(ctx, series)
}

func (c cache) fetchKernel(ctx context.Context, series string) (k kernel, err error) {
	err = c.withApt(ctx, func(a *apt) error {
		names, err := a.names(ctx, "linux-")
		if err != nil {
			return err
		}
		offered := kernelPackages(names)
		var releases []string
		for release := range offered {
			releases = append(releases, release)
		}
		release := newest(series, releases)
		if release == "" {
			slices.SortFunc(releases, compareReleases)
			return fmt.Errorf("no kernel %s in %s: they have %s", series, strings.Join(suites, ", "), strings.Join(releases, ", "))
		}
		k = kernel{release, filepath.Join(c.kernels(), release)}
		if exists(k.dir) {
			return nil
		}
		return a.unpack(ctx, k.dir, false, offered[release]...)
	})
	return k, err
}

// qemu returns the directory of the unpacked QEMU, fetching it if need be.
func (c cache) qemu(ctx context.Context) (dir string, err error) {
	dir = filepath.Join(c.dir, "qemu-"+qemuSuite)
	if exists(dir) {
		return dir, nil
	}
	return dir, c.withApt(ctx, func(a *apt) error {
		if exists(dir) {
			return nil
		}
		return a.unpack(ctx, dir, true, "qemu-system-x86")
	})
}

// cloudKernel matches the packages of Debian's kernels for virtual machines.
var cloudKernel = regexp.MustCompile(`^linux-(image|binary|modules)-(\d+\.\d.*-cloud-amd64)$`)

// kernelPackages returns which packages make each complete kernel of names.
// Until 6.18 linux-image holds everything. From 6.19 on linux-image is empty
// and depends on linux-binary and linux-modules; superseded ones linger in the
// archive without their modules.
func kernelPackages(names []string) map[string][]string {
	kinds := make(map[string][]string)
	for _, name := range names {
		if m := cloudKernel.FindStringSubmatch(name); m != nil {
			kinds[m[2]] = append(kinds[m[2]], m[1])
		}
	}
	complete := make(map[string][]string)
	for release, has := range kinds {
		binary, modules := slices.Contains(has, "binary"), slices.Contains(has, "modules")
		switch {
		case binary && modules:
			complete[release] = []string{"linux-binary-" + release, "linux-modules-" + release}
		case !binary && !modules:
			complete[release] = []string{"linux-image-" + release}
		}
	}
	return complete
}

// newest returns the newest of releases that belongs to the series, or "".
func newest(series string, releases []string) string {
	in := slices.DeleteFunc(slices.Clone(releases), func(r string) bool {
		return !strings.HasPrefix(r, series+".") && r != series
	})
	if len(in) == 0 {
		return ""
	}
	return slices.MaxFunc(in, compareReleases)
}

var number = regexp.MustCompile(`\d+`)

// compareReleases compares the numbers in two releases from left to right.
func compareReleases(a, b string) int {
	numbers := func(s string) (n []int) {
		for _, digits := range number.FindAllString(s, -1) {
			i, _ := strconv.Atoi(digits) // beyond int: equal, and unheard of
			n = append(n, i)
		}
		return n
	}
	return slices.Compare(numbers(a), numbers(b))
}

// image is the kernel's bzImage.
func (k kernel) image() (string, error) {
	for _, pattern := range []string{"boot/vmlinuz*", "usr/lib/modules/*/vmlinuz*", "lib/modules/*/vmlinuz*"} {
		found, err := filepath.Glob(filepath.Join(k.dir, pattern))
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return found[0], nil
		}
	}
	return "", errors.New("no vmlinuz in " + k.dir)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
