package external

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
	"containerd-shim-numa-v1/task/enginetest"
)

// As in the command: the main thread starts no process (doc.go).
func init() { goruntime.LockOSThread() }

var cgroupParent = enginetest.CgroupParent("external")

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
	code := enginetest.Run(m, cgroupParent)
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
	enginetest.Require(t)
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			test(t, rig{&Engine{binary: findRuntime(t, name), adopter: adoption, removeEmpty: removeEmpty}, name})
		})
	}
}

// removeEmpty removes the cgroup of a container whose id is its name.
func removeEmpty(_ context.Context, id, _ string) error {
	return enginetest.RemoveCgroups(cgroupParent + "/" + id)
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

// The words of both engines' tests.
var (
	eventually  = enginetest.Eventually
	cgroupDirs  = enginetest.Cgroups
	processSpec = enginetest.Process
	newID       = enginetest.NewID
	request     = enginetest.Request
	wait        = enginetest.Wait
	sharedPIDs  = enginetest.SharedPIDs
	noGrowth    = enginetest.NoGrowth
)

type waited = enginetest.Waited

func specOf(id string, args ...string) *specs.Spec {
	return enginetest.Spec(cgroupParent, id, args...)
}

func shell(script string) []string { return []string{"sh", "-c", script} }

// container is a container of the engine, and the one waiter of its init.
type container struct {
	*instance
	t      testing.TB
	bundle string
	init   *waited
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
	enginetest.NothingLeft(t, q)
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
	c.init.Status(c.t)
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
	return enginetest.Exec(c.t, c, args...)
}

// output runs a process in the container and reads what it writes.
func (c *container) output(args ...string) string {
	c.t.Helper()
	return enginetest.Output(c.t, c, args...)
}
