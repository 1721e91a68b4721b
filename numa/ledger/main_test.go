package ledger

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// roleVariable tells this binary to be a process of a test. Its other
// arguments are the role's.
const roleVariable = "LEDGER_TEST_ROLE"

// roles are what a test can start another process as. They print lines and
// end when their standard input does, or before.
var roles = map[string]func(args []string) error{
	"claim":  claimRole,
	"die":    dieRole,
	"hold":   holdRole,
	"shim":   shimRole,
	"thread": threadRole,
}

// init keeps the first goroutine on the first thread, for threadRole.
func init() {
	if os.Getenv(roleVariable) != "" {
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// child is a process in a role.
type child struct {
	*exec.Cmd
	out *bufio.Reader
}

func start(t testing.TB, role string, args ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command("/proc/self/exe", args...)}
	c.Env = append(os.Environ(), roleVariable+"="+role)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	must(t, err)
	c.out = bufio.NewReader(out)
	in, err := c.StdinPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() {
		in.Close()
		c.Process.Kill()
		c.Wait()
	})
	return c
}

// line waits for the next line that the process prints.
func (c *child) line(t testing.TB) string {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatalf("process ended (%v) after printing %q", err, line)
	}
	return strings.TrimSpace(line)
}

// awaitEnd returns when the test that started this process has ended.
func awaitEnd() {
	var b [1]byte
	for {
		if n, err := os.Stdin.Read(b[:]); n == 0 && err != nil {
			return
		}
	}
}

// holdRole holds the lock of the directory args[0].
func holdRole(args []string) error {
	d, err := openDir(args[0], false)
	if err != nil {
		return err
	}
	if _, err := d.lock(context.Background(), time.Minute); err != nil {
		return err
	}
	fmt.Println("locked")
	awaitEnd()
	return nil
}

// shimRole owns a shared claim for the bundle args[2] on the node args[3] in
// the ledger args[0] with the roots args[1], and tells when it is woken.
func shimRole(args []string) error {
	woken := make(chan os.Signal, 1)
	signal.Notify(woken, WakeSignal)
	l, err := Open(Config{Dir: args[0], Topology: machine(), Roots: args[1:2]})
	if err != nil {
		return err
	}
	node, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	claim := sharedOn(node)
	if _, err := l.Reserve(context.Background(), args[2], always(claim)); err != nil {
		return err
	}
	fmt.Println("reserved")
	go func() {
		for range woken {
			fmt.Println("woken")
		}
	}()
	awaitEnd()
	return nil
}

// threadRole ends its first thread and lives on in others.
func threadRole([]string) error {
	go func() {
		awaitEnd()
		os.Exit(0)
	}()
	fmt.Println(os.Getpid())
	unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	return errors.New("the thread lives on")
}

// machine has two nodes of eight CPUs.
func machine() *numa.Topology {
	return &numa.Topology{
		Nodes:  []numa.Node{{ID: 0, CPUs: cpuset.Range(0, 7)}, {ID: 1, CPUs: cpuset.Range(8, 15)}},
		Online: cpuset.Range(0, 15), ThreadsPerCore: 1, Hash: "0123456789abcdef",
	}
}

func sharedOn(node int) numa.Claim {
	return numa.Claim{Milli: 1500, Width: 2, Nodes: cpuset.Of(node), Granted: cpuset.Range(0, 15)}
}

func dedicated(cpus ...int) numa.Claim {
	return numa.Claim{
		Milli: 1000 * len(cpus), Width: len(cpus),
		Nodes: cpuset.Of(cpus[0] / 8), Owned: cpuset.Of(cpus...), Granted: cpuset.Range(0, 15),
	}
}

// always decides for one claim.
func always(c numa.Claim) Decide {
	return func([]numa.Claim, numa.Demand) (numa.Claim, error) { return c, nil }
}

// open opens a ledger of the test's own, with bundles in root/ns.
func open(t testing.TB) *Ledger {
	t.Helper()
	dir := t.TempDir()
	l, err := Open(Config{Dir: filepath.Join(dir, "ledger"), Topology: machine(), Roots: []string{filepath.Join(dir, "bundles")}})
	must(t, err)
	return l
}

// as is a ledger as another process sees it.
func as(t testing.TB, l *Ledger, p Process) *Ledger {
	t.Helper()
	other, err := Open(l.config)
	must(t, err)
	other.self = p
	return other
}

// bundle is the path of a bundle that need not exist.
func bundle(l *Ledger, id string) string { return filepath.Join(l.config.Roots[0], "ns", id) }

// reserve reserves, makes the bundle and records the claim in it.
func reserve(t testing.TB, l *Ledger, id string, c numa.Claim) string {
	t.Helper()
	b := bundle(l, id)
	got, err := l.Reserve(t.Context(), b, always(c))
	must(t, err)
	writeRecord(t, b, l.Record(got, Process{}))
	return b
}

// write makes a change that concerns no container.
func write(t testing.TB, l *Ledger) {
	t.Helper()
	l.Count(FailedOpen)
	must(t, l.Settle(t.Context()))
}

func writeRecord(t testing.TB, bundle string, r Record) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"claim": r, "reason": "something else"})
	must(t, err)
	must(t, os.MkdirAll(bundle, 0o700))
	must(t, os.WriteFile(filepath.Join(bundle, RecordFile), text, 0o600))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read reads the ledger and the bundles' names in it.
func read(t testing.TB, l *Ledger) (entries []Entry, ids []string) {
	t.Helper()
	entries, err := l.Read()
	must(t, err)
	for _, e := range entries {
		ids = append(ids, filepath.Base(e.Bundle))
	}
	return entries, ids
}

// sound fails the test unless the file of the ledger is whole, and nothing
// unknown lies beside it.
func sound(t testing.TB, l *Ledger) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(l.config.Dir, stateFile))
	must(t, err)
	if _, err := parse(text); err != nil {
		t.Error(err)
	}
	files, err := os.ReadDir(l.config.Dir)
	must(t, err)
	for _, f := range files {
		switch f.Name() {
		case stateFile, rootsFile, badFile:
		default:
			t.Errorf("%s is left in the ledger", f.Name())
		}
	}
}

// sameEntries compares what two reads gave.
func sameEntries(a, b []Entry) bool {
	s, u := state{}, state{}
	for _, e := range a {
		s.rows = append(s.rows, row{Entry: e})
	}
	for _, e := range b {
		u.rows = append(u.rows, row{Entry: e})
	}
	x, errX := s.encode()
	y, errY := u.encode()
	return errX == nil && errY == nil && string(x) == string(y)
}
