package external

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// As in the command: the main thread starts no process (doc.go).
func init() { goruntime.LockOSThread() }

// The tests' cgroups; all of them are gone when all tests are done.
const cgroupParent = "/numa-external-test"

// adoption is the process's one adopter, shared by the engines of all
// runtimes.
var adoption *adopter

func TestMain(m *testing.M) {
	if code, isolated := isolate(); isolated {
		os.Exit(code)
	}
	logrus.SetOutput(io.Discard)
	var err error
	if adoption, err = newAdopter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	left := slices.DeleteFunc(cgroupDirs(cgroupParent), func(dir string) bool { return strings.HasSuffix(dir, cgroupParent) })
	if len(left) > 0 && code == 0 {
		fmt.Fprintln(os.Stderr, "cgroups left:", left)
		code = 1
	}
	for _, dir := range slices.Backward(cgroupDirs(cgroupParent)) {
		_ = os.Remove(dir)
	}
	if err := adoption.close(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// hybrid is where systemd mounts the second version of cgroups beside the
// first.
const hybrid = "/sys/fs/cgroup/unified"

// isolate runs the tests again in a mount namespace without hybrid if that has
// controllers: crun refuses to run beside it. Directories that it makes and
// leaves there then are no cgroups.
func isolate() (code int, isolated bool) {
	const inside = "NUMA_EXTERNAL_TEST_INSIDE"
	if os.Getenv(inside) != "" {
		os.Unsetenv(inside)
		if err := unix.Mount("none", hybrid, "tmpfs", 0, ""); err != nil {
			fmt.Fprintln(os.Stderr, "mount over", hybrid, err)
			return 1, true
		}
		return 0, false
	}
	controllers, _ := os.ReadFile(filepath.Join(hybrid, "cgroup.controllers"))
	if os.Geteuid() != 0 || len(strings.TrimSpace(string(controllers))) == 0 {
		return 0, false
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// With Unshareflags Go makes all mounts of the new namespace private.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return cmd.ProcessState.ExitCode(), true
}

const busybox = "/bin/busybox"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a runtime under test.
type rig struct {
	*Engine
	name string
}

func (r rig) crun() bool { return r.name == "crun" }

// eachRuntime runs a test on every runtime that it finds.
func eachRuntime(t *testing.T, test func(*testing.T, rig)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes containers")
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("needs a static busybox: ", err)
	}
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			test(t, rig{&Engine{binary: findRuntime(t, name), adopter: adoption, removeEmpty: removeEmpty}, name})
		})
	}
}

// removeEmpty removes the cgroup of a container whose id is its name.
func removeEmpty(_ context.Context, id, _ string) error {
	for _, dir := range slices.Backward(cgroupDirs(cgroupParent + "/" + id)) {
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	return nil
}

// findRuntime finds a runtime on the PATH or, of runc, the one that
// `make tools` has built.
func findRuntime(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	cache, err := os.UserCacheDir()
	must(t, err)
	built, err := filepath.Glob(filepath.Join(cache, "containerd-shim-numa", name+"-*", name))
	must(t, err)
	if len(built) == 0 {
		t.Skipf("no %s: make test-deps installs crun, make tools builds runc", name)
	}
	return built[len(built)-1]
}

// eventually waits for a condition; a test is not to fail for being slow.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// cgroupDirs finds a cgroup's directories, and those below, in all
// hierarchies.
func cgroupDirs(path string) []string {
	var dirs []string
	roots, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, root := range append(roots, "/sys/fs/cgroup") {
		_ = filepath.WalkDir(root+path, func(dir string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && isCgroup(dir) {
				dirs = append(dirs, dir)
			}
			return nil
		})
	}
	return dirs
}

// isCgroup tells a cgroup from the directories that crun makes on a tmpfs.
func isCgroup(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type != unix.TMPFS_MAGIC
}

// tree makes a root filesystem of busybox.
func tree(t testing.TB, dir string) {
	t.Helper()
	for _, d := range []string{"bin", "proc", "dev", "tmp", "mnt"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	data, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755))
	for _, name := range []string{"sh", "sleep", "true", "cat", "echo", "kill", "tty"} {
		must(t, os.Symlink("busybox", filepath.Join(dir, "bin", name)))
	}
}

func specOf(id string, args ...string) *specs.Spec {
	return &specs.Spec{
		Version: "1.0.0", // the newest that crun 1.8 takes
		Root:    &specs.Root{Path: "rootfs"},
		Process: processSpec(args...),
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		},
		Linux: &specs.Linux{
			CgroupsPath: cgroupParent + "/" + id,
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}},
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
}

func processSpec(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}
}

func shell(script string) []string { return []string{"sh", "-c", script} }

// sharedPIDs is spec without a PID namespace of its own.
func sharedPIDs(spec *specs.Spec) *specs.Spec {
	spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	return spec
}

// container is a container of the engine, and the one waiter of its init.
type container struct {
	*instance
	t      testing.TB
	bundle string
	init   *waited
}

// waited is a process with its waiter.
type waited struct {
	task.Child
	done chan struct{}
	exit task.Exit
}

func wait(c task.Child) *waited {
	w := &waited{Child: c, done: make(chan struct{})}
	go func() { w.exit = c.Wait(); close(w.done) }()
	return w
}

func (w *waited) status(t testing.TB) uint32 {
	t.Helper()
	select {
	case <-w.done:
		return w.exit.Status
	case <-time.After(time.Minute):
		t.Fatal("the process does not exit")
		return 0
	}
}

func (w *waited) gone() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

var serial atomic.Int32

func newID() string { return fmt.Sprint("c", serial.Add(1)) }

// request is for a container of spec on busybox; the runtime's state is in
// the bundle.
func request(t testing.TB, spec *specs.Spec) task.CreateRequest {
	t.Helper()
	bundle := t.TempDir()
	if spec.Root.Path == "rootfs" {
		tree(t, filepath.Join(bundle, "rootfs"))
	}
	data, err := json.Marshal(spec)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bundle, specFile), data, 0o600))
	return task.CreateRequest{ID: filepath.Base(spec.Linux.CgroupsPath), Bundle: bundle, Root: filepath.Join(bundle, "state"), Spec: spec}
}

// create makes a container that the test's end takes away, and checks that
// nothing of it stays.
func (r rig) create(t testing.TB, spec *specs.Spec) *container {
	t.Helper()
	return r.createFrom(t, request(t, spec))
}

func (r rig) createFrom(t testing.TB, q task.CreateRequest) *container {
	t.Helper()
	i, err := r.Engine.Create(t.Context(), q)
	must(t, err)
	c := &container{instance: i.(*instance), t: t, bundle: q.Bundle, init: wait(i.Init())}
	t.Cleanup(func() {
		c.remove()
		nothingLeft(t, q)
	})
	return c
}

// nothingLeft checks what a container may have left behind.
func nothingLeft(t testing.TB, q task.CreateRequest) {
	t.Helper()
	if left := cgroupDirs(q.Spec.Linux.CgroupsPath); len(left) > 0 {
		t.Errorf("cgroups left: %q", left)
	}
	if left, _ := filepath.Glob(filepath.Join(q.Root, "*")); len(left) > 0 {
		t.Errorf("state left: %q", left)
	}
	if left, _ := filepath.Glob(filepath.Join(q.Bundle, ".*")); len(left) > 0 {
		t.Errorf("in the bundle: %q", left)
	}
	eventually(t, "no zombie is left", func() bool { return !slices.ContainsFunc(adopted(t), isZombie) })
}

// adopted are the processes that this one has adopted.
func adopted(t testing.TB) []int {
	t.Helper()
	pids, err := adoptedChildren()
	must(t, err)
	return pids
}

// isZombie tells whether a process has exited (proc_pid_stat(5)).
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func (c *container) remove() {
	c.t.Helper()
	_ = c.init.Signal(unix.SIGKILL)
	_ = c.KillAll(unix.SIGKILL)
	c.init.status(c.t)
	must(c.t, c.instance.Delete(c.t.Context()))
}

// run creates a container and starts it.
func (r rig) run(t testing.TB, spec *specs.Spec) *container {
	t.Helper()
	c := r.create(t, spec)
	must(t, c.Start(t.Context()))
	return c
}

func (c *container) exec(args ...string) *waited {
	c.t.Helper()
	child, err := c.Exec(c.t.Context(), processSpec(args...), task.Files{})
	must(c.t, err)
	return wait(child)
}

// output runs a process in the container and reads what it writes.
func (c *container) output(args ...string) string {
	c.t.Helper()
	r, w, err := os.Pipe()
	must(c.t, err)
	defer r.Close()
	child, err := c.Exec(c.t.Context(), processSpec(args...), task.Files{Stdout: w})
	w.Close()
	must(c.t, err)
	p := wait(child)
	data, err := io.ReadAll(r)
	must(c.t, err)
	if s := p.status(c.t); s != 0 {
		c.t.Errorf("%q: exit status %d", args, s)
	}
	return string(data)
}

// noGrowth fails if f, done often, leaves descriptors or goroutines.
func noGrowth(t *testing.T, times int, f func()) {
	t.Helper()
	count := func() (fds, goroutines int) {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries), goruntime.NumGoroutine()
	}
	f()
	fds, goroutines := count()
	for range times {
		f()
	}
	eventually(t, "descriptors and goroutines are gone", func() bool {
		nowFDs, nowGoroutines := count()
		return nowFDs <= fds && nowGoroutines <= goroutines
	})
}
