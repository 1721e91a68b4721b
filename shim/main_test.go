package shim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// The test binary is the shim as well, where these are set.
const (
	envRole       = "SHIM_TEST_ROLE"
	envSockets    = "SHIM_TEST_SOCKETS"
	envUnattended = "SHIM_TEST_UNATTENDED"
	envDeleted    = "SHIM_TEST_DELETED"
	envDial       = "SHIM_TEST_DIAL"
	envTermMemory = "SHIM_TEST_TERM_MEMORY"

	roleShim = "shim"
	roleDial = "dial"

	testNamespace = "testing"
	testRuntime   = "io.containerd.test.v1"
	testService   = "test.Shim"

	testQuiet    = 50 * time.Millisecond // of calls, before memory is given back
	releaseDelay = 600 * time.Millisecond
	answerDelay  = 200 * time.Millisecond // of a call that is under way at the end
)

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case roleShim:
		os.Exit(Run(context.Background(), testShim()))
	case roleDial:
		os.Exit(dialAndCall(os.Getenv(envDial)))
	}
	os.Exit(m.Run())
}

// rig is a place with bundles and sockets, and a containerd address of its
// own, by which its daemons are found.
type rig struct {
	testing.TB
	dir, sockets, bundles, deleted string
	address                        string
	unattended, termMemory         time.Duration
}

func newRig(t testing.TB) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "shim-") // shorter than t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{TB: t, dir: dir, sockets: dir + "/s", bundles: dir + "/b", deleted: dir + "/deleted", address: dir + "/containerd.sock"}
	if err := os.Mkdir(r.bundles, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range r.daemons() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		r.eventually("daemons are gone", func() bool { return len(r.daemons()) == 0 })
		os.RemoveAll(dir)
	})
	return r
}

func (r *rig) bundle(id string, annotations map[string]string) string {
	r.Helper()
	dir := filepath.Join(r.bundles, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		r.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"ociVersion": "1.2.0", "annotations": annotations})
	if err != nil {
		r.Fatal(err)
	}
	r.write(filepath.Join(dir, configName), config)
	return dir
}

func (r *rig) write(name string, data []byte) {
	r.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		r.Fatal(err)
	}
}

// shim makes a command of the test binary as the shim, in a bundle.
func (r *rig) shim(bundle string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "/usr/bin/containerd-shim-test-v1"
	cmd.Dir = bundle
	cmd.Env = append(os.Environ(), envRole+"="+roleShim, envSockets+"="+r.sockets, envDeleted+"="+r.deleted,
		envUnattended+"="+r.unattended.String(), envTermMemory+"="+r.termMemory.String(), "GORACE=atexit_sleep_ms=0", "GOMAXPROCS=2", "TTRPC_ADDRESS="+r.address+".ttrpc")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func (r *rig) flags(id string, more ...string) []string {
	return append([]string{"-namespace", testNamespace, "-address", r.address, "-publish-binary", "/bin/false", "-id", id}, more...)
}

func (r *rig) params(id string, change func(*bootstrap.BootstrapParams)) []byte {
	r.Helper()
	p := &bootstrap.BootstrapParams{
		InstanceID: id, Namespace: testNamespace,
		ContainerdVersion: "2.4.2", ContainerdBinary: "/bin/false",
		ContainerdGrpcAddress: r.address, ContainerdTtrpcAddress: r.address + ".ttrpc",
	}
	if change != nil {
		change(p)
	}
	data, err := proto.Marshal(p)
	if err != nil {
		r.Fatal(err)
	}
	return data
}

// start runs start as containerd does and returns the socket's path.
func (r *rig) start(id string, stdin []byte, more ...string) (string, error) {
	cmd := r.shim(filepath.Join(r.bundles, id), append(r.flags(id, more...), commandStart)...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	var result bootstrap.BootstrapResult
	if err := proto.Unmarshal(out, &result); err != nil {
		if err := json.Unmarshal(out, &result); err != nil {
			return "", fmt.Errorf("parse answer %q: %w", out, err)
		}
	}
	if want := int32(3); len(stdin) > 0 && bytes.Contains(stdin, []byte("2.4.2")) && result.Version != want {
		return "", fmt.Errorf("version %d, want %d", result.Version, want)
	}
	path, ok := strings.CutPrefix(result.Address, unixScheme)
	if !ok || result.Protocol != "ttrpc" {
		return "", fmt.Errorf("answer %q", out)
	}
	return path, nil
}

func (r *rig) mustStart(id string, stdin []byte, more ...string) string {
	r.Helper()
	path, err := r.start(id, stdin, more...)
	if err != nil {
		r.Fatalf("start %s: %v", id, err)
	}
	return path
}

func (r *rig) client(path string) *ttrpc.Client {
	r.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		r.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	r.Cleanup(func() { c.Close() })
	return c
}

func (r *rig) call(c *ttrpc.Client, method string) {
	r.Helper()
	if err := c.Call(context.Background(), testService, method, &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		r.Fatalf("%s: %v", method, err)
	}
}

// daemons returns the processes of this rig that serve or were asked to.
func (r *rig) daemons() []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if slices.Contains(cmdline(pid), r.address) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func cmdline(pid int) []string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}

func (r *rig) daemon() int {
	r.Helper()
	pids := r.daemons()
	if len(pids) != 1 {
		r.Fatalf("daemons %v, want one", pids)
	}
	return pids[0]
}

// kill returns once the process has closed its files, too: it loses its
// command line, by which daemons finds it, well before its sockets.
func (r *rig) kill(pid int) {
	r.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		r.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		r.Fatal(err)
	}
	r.eventually("killed daemon is gone", func() bool {
		ended, _ := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
		return ended == 1 && !slices.Contains(r.daemons(), pid)
	})
}

// eventually waits long enough that only what never happens fails.
func (r *rig) eventually(what string, done func() bool) {
	r.Helper()
	eventually(r, what, done)
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// files lists what is in a directory and below, without the directory.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && path != dir {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return names
}

// fifo makes the bundle's log FIFO and returns what reads it.
func (r *rig) fifo(bundle string) *bufio.Reader {
	r.Helper()
	name := filepath.Join(bundle, logName)
	if err := unix.Mkfifo(name, 0o600); err != nil {
		r.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { f.Close() })
	return bufio.NewReader(f)
}

// expect reads a log until it says something.
func expect(t testing.TB, log *bufio.Reader, text string) string {
	t.Helper()
	for {
		line, err := log.ReadString('\n')
		if err != nil {
			t.Fatalf("log ended before %q: %v", text, err)
		}
		if strings.Contains(line, text) {
			return line
		}
		if strings.Contains(line, "DATA RACE") {
			rest, _ := io.ReadAll(io.LimitReader(log, 4096))
			t.Fatalf("%s%s", line, rest)
		}
	}
}

func credential(uid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}
