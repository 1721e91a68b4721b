package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv makes a re-executed test binary play a part instead of running
// tests.
const roleEnv = "ROOTFS_TEST_ROLE"

// tierEnv makes tests that leave the choice use one tier, as they would on a
// kernel that has no better one.
const tierEnv = "ROOTFS_TEST_TIER"

var roles = map[string]func([]string) error{
	"init":      playInit,
	"assembler": playAssembler,
	"sleeper":   playSleeper,
	"scanner":   playScanner,
	"namespace": playNamespace,
}

// The main thread must stay in the tests' namespace: it is what /proc/self
// shows, and a goroutine that leaves the namespace could happen to run on it.
func init() { runtime.LockOSThread() }

// TestMain runs all tests in a mount namespace of their own: the host's other
// mounts neither disturb nor suffer, and whatever a test leaves dies with it.
func TestMain(m *testing.M) {
	if os.Args[0] == userNSProcess {
		time.Sleep(2 * time.Second) // long enough to be found: it must never run
		os.Exit(1)
	}
	role := os.Getenv(roleEnv)
	switch {
	case role == "" && os.Geteuid() != 0:
		os.Exit(m.Run()) // tests that need root skip themselves
	case role == "":
		os.Exit(inOwnNamespace())
	case role == "tests":
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, "make / private:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func inOwnNamespace() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), roleEnv+"=tests")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "run tests in a mount namespace:", err)
		return 1
	}
	return 0
}

// play starts this binary in another role.
func play(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	// A race-enabled program sleeps a second before it exits, if not told.
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "GORACE=atexit_sleep_ms=0")
	return cmd
}

func requireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts file systems")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mapsTmpfs reports whether this kernel can ID-map a tmpfs (Linux 6.3).
func mapsTmpfs(t testing.TB) bool {
	t.Helper()
	m := Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"uidmap=" + testMap, "gidmap=" + testMap}}
	tree, err := Assemble(context.Background(), []Mount{m}, Options{})
	if err == nil {
		err = tree.Close()
	}
	return err == nil
}

// tmpfs mounts a tmpfs that the test's end takes away; where that cannot be
// ID-mapped, a directory of the file system for temporary files.
func tmpfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	mountScratch(t, dir)
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func mountScratch(t testing.TB, dir string) {
	t.Helper()
	if mapsTmpfs(t) {
		must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"))
		return
	}
	must(t, os.Chmod(dir, 0o755))
	must(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
}

// mountOver mounts on dir something else that can be ID-mapped. The caller
// unmounts it.
func mountOver(t testing.TB, dir string) {
	t.Helper()
	must(t, unix.Mount(tmpfs(t), dir, "", unix.MS_BIND, ""))
}

func mountTable(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return string(b)
}

func openFDs(t testing.TB) string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	var out []string
	for _, e := range entries {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(link, "/proc/") {
			out = append(out, e.Name()+" "+link)
		}
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

func children(t testing.TB) string {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	must(t, err)
	var all string
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		all += string(b)
	}
	return all
}

// unchanged fails the test if, at its end, the mount table, the open
// descriptors or the child processes are not what they are now.
func unchanged(t testing.TB) {
	t.Helper()
	table, fds, procs := mountTable(t), openFDs(t), children(t)
	t.Cleanup(func() {
		if got := mountTable(t); got != table {
			t.Errorf("mount table changed\nbefore:\n%s\nafter:\n%s", table, got)
		}
		if got := openFDs(t); got != fds {
			t.Errorf("descriptors changed\nbefore:\n%s\nafter:\n%s", fds, got)
		}
		if got := children(t); got != procs {
			t.Errorf("children changed: %q, then %q", procs, got)
		}
	})
}

// inside attaches the tree at a directory of a mount namespace that ends with
// the call, and runs do there. The tree is closed then.
func inside(t testing.TB, tree *Tree, do func(root string) error) {
	t.Helper()
	if root := tree.Host(); root != "" {
		err := do(root)
		must(t, Detach(root))
		must(t, err)
		must(t, tree.Close())
		return
	}
	root := t.TempDir()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread's namespace is not ours
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.MoveMount(int(tree.file.Fd()), "", unix.AT_FDCWD, root, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
				return err
			}
			return do(root)
		}()
	}()
	must(t, <-done)
	must(t, tree.Close())
}

func write(t testing.TB, path, content string, uid int, mode os.FileMode) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
	must(t, os.Lchown(path, uid, uid))
	must(t, os.Chmod(path, mode))
}

// snapshot is a directory laid out as containerd's overlay snapshotter does.
type snapshot struct {
	dir         string
	lowers      []string // topmost first
	upper, work string
}

// newSnapshot makes n layers under dir: each has a file of its own, all have
// "top", which says which layer won, and the lowest has files of several
// owners.
func newSnapshot(t testing.TB, dir string, n int) *snapshot {
	t.Helper()
	s := &snapshot{dir: dir}
	for i := 1; i <= n; i++ {
		layer := filepath.Join(dir, strconv.Itoa(i), "fs")
		must(t, os.MkdirAll(layer, 0o755))
		write(t, filepath.Join(layer, "top"), strconv.Itoa(i), 0, 0o644)
		write(t, filepath.Join(layer, "layer"+strconv.Itoa(i)), "", 33, 0o644)
		s.lowers = append([]string{layer}, s.lowers...)
	}
	base := s.lowers[len(s.lowers)-1]
	write(t, filepath.Join(base, "nobody"), "", 70000, 0o644)
	must(t, os.Mkdir(filepath.Join(base, "dir"), 0o755))
	write(t, filepath.Join(base, "dir", "hidden"), "", 0, 0o644)
	write(t, filepath.Join(base, "deleted"), "", 0, 0o644)
	s.upper = filepath.Join(dir, strconv.Itoa(n+1), "fs")
	s.work = filepath.Join(dir, strconv.Itoa(n+1), "work")
	must(t, os.MkdirAll(s.upper, 0o755))
	must(t, os.Mkdir(s.work, 0o711))
	return s
}

const (
	testMap  = "0:100000:65536"
	testRoot = 100000
)

func (s *snapshot) mount(extra ...string) Mount {
	return Mount{Type: "overlay", Source: "overlay", Options: append([]string{
		"workdir=" + s.work, "upperdir=" + s.upper, "lowerdir=" + strings.Join(s.lowers, ":"),
	}, extra...)}
}

// idmapped is the mount for a user namespace; the upper directory is given to
// the mapped root, as snapshotters do.
func (s *snapshot) idmapped(t testing.TB, extra ...string) Mount {
	t.Helper()
	must(t, os.Chown(s.upper, testRoot, testRoot))
	return s.mount(append([]string{"uidmap=" + testMap, "gidmap=" + testMap}, extra...)...)
}

func assemble(t testing.TB, o Options, mounts ...Mount) *Tree {
	t.Helper()
	if s := os.Getenv(tierEnv); s != "" && o.Tier == Auto && o.Target == "" && o.Base == nil {
		tier, err := ParseTier(s)
		must(t, err)
		o.Tier = tier
	}
	tree, err := Assemble(t.Context(), mounts, o)
	must(t, err)
	t.Cleanup(func() { must(t, tree.Close()) })
	return tree
}

func owner(path string) (uint32, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return st.Uid, err
}
