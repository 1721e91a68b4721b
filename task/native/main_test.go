package native

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/rootfs"
	"containerd-shim-numa-v1/task"
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

// The tests' cgroups; all of them are gone when all tests are done.
const cgroupParent = "/numa-native-test"

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	code := m.Run()
	left := slices.DeleteFunc(cgroupDirs(cgroupParent), func(dir string) bool { return strings.HasSuffix(dir, cgroupParent) })
	if len(left) > 0 && code == 0 {
		fmt.Fprintln(os.Stderr, "cgroups left:", left)
		code = 1
	}
	removeCgroups(cgroupParent)
	os.Exit(code)
}

const busybox = "/bin/busybox"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func requireContainers(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes containers")
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("needs a static busybox: ", err)
	}
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
			if err == nil && d.IsDir() {
				dirs = append(dirs, dir)
			}
			return nil
		})
	}
	return dirs
}

func removeCgroups(path string) {
	dirs := cgroupDirs(path)
	for i := len(dirs) - 1; i >= 0; i-- {
		_ = os.Remove(dirs[i])
	}
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
	for _, name := range []string{"sh", "sleep", "true", "cat", "echo", "kill", "dd"} {
		must(t, os.Symlink("busybox", filepath.Join(dir, "bin", name)))
	}
}

func specOf(id string, args ...string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: processSpec(args...),
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
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

var serial struct {
	sync.Mutex
	n int
}

func newID() string {
	serial.Lock()
	defer serial.Unlock()
	serial.n++
	return fmt.Sprint("c", serial.n)
}

// request is for a container of spec on busybox; its state is in the bundle's
// neighbour "state".
func request(t testing.TB, spec *specs.Spec) task.CreateRequest {
	t.Helper()
	requireContainers(t)
	bundle := t.TempDir()
	if spec.Root.Path == "rootfs" {
		spec.Root.Path = filepath.Join(bundle, "rootfs")
		tree(t, spec.Root.Path)
	}
	data, err := json.Marshal(spec)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600))
	return task.CreateRequest{ID: filepath.Base(spec.Linux.CgroupsPath), Bundle: bundle, Root: filepath.Join(bundle, "state"), Spec: spec}
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
		if left := cgroupDirs(r.Spec.Linux.CgroupsPath); len(left) > 0 {
			t.Errorf("cgroups left: %q", left)
		}
		if left, _ := filepath.Glob(filepath.Join(r.Root, "*")); len(left) > 0 {
			t.Errorf("state left: %q", left)
		}
	})
	return c
}

func (c *container) remove() {
	c.t.Helper()
	_ = c.init.Signal(unix.SIGKILL)
	_ = c.Resume(c.t.Context())
	c.init.status(c.t)
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

// resources counts what a shim must not accumulate.
type resources struct{ fds, goroutines, threads int }

func countResources(t testing.TB) resources {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	threads, err := os.ReadDir("/proc/self/task")
	must(t, err)
	return resources{len(fds), runtime.NumGoroutine(), len(threads)}
}

// noGrowth fails if f, done often, leaves descriptors, goroutines or threads.
// The Go runtime keeps some idle threads of its own.
func noGrowth(t *testing.T, times int, f func()) {
	t.Helper()
	f()
	before := countResources(t)
	for range times {
		f()
	}
	var now resources
	ok := func() bool {
		now = countResources(t)
		return now.fds <= before.fds && now.goroutines <= before.goroutines && now.threads <= before.threads+times/2+2
	}
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v, were %+v", now, before)
		}
	}
}
