package native

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/rootfs"
	"containerd-shim-numa-v1/task"
	"containerd-shim-numa-v1/task/enginetest"
)

// As in the command: this binary is libcontainer's init, and the main thread
// takes part in nothing (doc.go).
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		if err := rootfs.AttachInherited(); err != nil {
			os.Exit(1)
		}
		libcontainer.Init()
	}
	runtime.LockOSThread()
}

var cgroupParent = enginetest.CgroupParent("native")

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	os.Exit(enginetest.Run(m, cgroupParent))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The words of both engines' tests.
var (
	eventually  = enginetest.Eventually
	cgroupDirs  = enginetest.Cgroups
	processSpec = enginetest.Process
	newID       = enginetest.NewID
	request     = enginetest.Request
	wait        = enginetest.Wait

	requireContainers = enginetest.Require
	removeCgroups     = enginetest.RemoveCgroups
	tree              = enginetest.Tree
)

const busybox = enginetest.Busybox

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
func create(t testing.TB, spec *specs.Spec) *container {
	t.Helper()
	return createFrom(t, request(t, spec))
}

func createFrom(t testing.TB, r task.CreateRequest) *container {
	t.Helper()
	i, err := Engine{}.Create(t.Context(), r)
	must(t, err)
	c := &container{instance: i.(*instance), t: t, bundle: r.Bundle, init: wait(i.Init())}
	t.Cleanup(func() {
		c.remove()
		enginetest.NothingLeft(t, r)
	})
	return c
}

func (c *container) remove() {
	c.t.Helper()
	_ = c.init.Signal(unix.SIGKILL)
	_ = c.Resume(c.t.Context())
	c.init.Status(c.t)
	_ = c.KillAll(unix.SIGKILL)
	eventually(c.t, "deleted", func() bool { return c.Delete(c.t.Context()) == nil })
}

// run creates a container and starts it.
func run(t testing.TB, spec *specs.Spec) *container {
	t.Helper()
	c := create(t, spec)
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

// cgroupFile reads a file of the container's cgroup.
func (c *container) cgroupFile(controller, file string) string {
	c.t.Helper()
	data, err := os.ReadFile(c.cgroupPath(controller, file))
	must(c.t, err)
	return strings.TrimSpace(string(data))
}

func (c *container) cgroupPath(controller, file string) string {
	return filepath.Join("/sys/fs/cgroup", controller, cgroupParent, c.id, file)
}

func requireV1(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		t.Skip("needs cgroup v1: reads its files")
	}
}

// noGrowth fails if f, done often, leaves descriptors, goroutines or threads.
// The Go runtime keeps some idle threads of its own.
func noGrowth(t *testing.T, times int, f func()) {
	t.Helper()
	threads := func() int {
		entries, err := os.ReadDir("/proc/self/task")
		must(t, err)
		return len(entries)
	}
	f()
	before := threads()
	enginetest.NoGrowth(t, times, f)
	eventually(t, fmt.Sprintf("there are %d threads and few more", before), func() bool {
		return threads() <= before+times/2+2
	})
}
