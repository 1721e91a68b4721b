package task

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "A0": true, "a-b_c.d": true, "0": true, strings.Repeat("a", maxIDLength): true,
		"": false, ".": false, "..": false, "/": false, "a/b": false, "../a": false, "a/..": false, "-a": false, "a-": false,
		"_": false, "a..b": false, "a--b": false, "a b": false, "a\n": false, "a\x00": false, "ä": false, "а": false, "%41": false,
		strings.Repeat("a", maxIDLength+1): false, "a+b": false, "\u202ea": false,
	} {
		if err := checkID(id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestExitFile(t *testing.T) {
	dir := t.TempDir()
	if _, _, ok, err := readExit(dir); ok || err != nil {
		t.Errorf("without a file: %v, %v", ok, err)
	}
	want := Exit{Status: 137, At: time.Now()}
	for range 2 { // the second replaces the first
		must(t, writeExit(dir, 42, want))
	}
	pid, got, ok, err := readExit(dir)
	if err != nil || !ok || pid != 42 || got.Status != want.Status || !got.At.Equal(want.At) {
		t.Errorf("%d, %v, %v, %v", pid, got, ok, err)
	}
	file := filepath.Join(dir, exitFile)
	good, err := os.ReadFile(file)
	must(t, err)
	st, err := os.Stat(file)
	must(t, err)
	if st.Mode() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	bad := []string{"", "null", "{}", "[]", "garbage", `{"Pid":0,"Timestamp":"2026-01-01T00:00:00Z"}`, `{"Pid":-1,"Timestamp":"2026-01-01T00:00:00Z"}`,
		`{"Pid":1,"Status":-1,"Timestamp":"2026-01-01T00:00:00Z"}`, `{"Pid":1}`, strings.Repeat(" ", maxStateSize+1)}
	for n := range good { // truncated anywhere
		bad = append(bad, string(good[:n]))
	}
	for _, data := range bad {
		must(t, os.WriteFile(file, []byte(data), 0o600))
		if _, _, ok, err := readExit(dir); ok || err == nil {
			t.Errorf("%.40q: %v, %v", data, ok, err)
		}
	}
	if err := writeExit(filepath.Join(dir, "none"), 1, want); err == nil {
		t.Error("written where there is no bundle")
	}
}

func TestInitPid(t *testing.T) {
	dir := t.TempDir()
	if pid := readInitPid(dir); pid != 0 {
		t.Error(pid)
	}
	must(t, writeInitPid(dir, 77))
	if pid := readInitPid(dir); pid != 77 {
		t.Error(pid)
	}
	for _, text := range []string{"", "x", "-3", "99999999999999999999", " 1"} {
		must(t, os.WriteFile(filepath.Join(dir, initPidFile), []byte(text), 0o600))
		if pid := readInitPid(dir); pid != 0 {
			t.Errorf("%q: %d", text, pid)
		}
	}
}

func TestStateRoot(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"": "/run/containerd/runc/ns", "{}": "/run/containerd/runc/ns", "garbage": "/run/containerd/runc/ns",
		`{"root":"/x"}`: "/x/ns", `{"root":1}`: "/run/containerd/runc/ns",
	} {
		must(t, os.WriteFile(filepath.Join(dir, optionsFile), []byte(text), 0o600))
		if got := stateRoot("ns", dir); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
	must(t, writeOptions(dir, Options{Settings: Settings{Root: "/y"}}))
	if got := stateRoot("ns", dir); got != "/y/ns" {
		t.Error(got)
	}
}

// A reader sees a whole file at any time, and nothing else stays.
func TestWriteAtomic(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	must(t, writeAtomic(file, []byte(strings.Repeat("0", 4096)), 0o600))
	var writers sync.WaitGroup
	for n := range 4 {
		writers.Go(func() {
			for range 50 {
				if err := writeAtomic(file, []byte(strings.Repeat(strconv.Itoa(n), 4096)), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 200 {
		data, err := os.ReadFile(file)
		must(t, err)
		if len(data) != 4096 || strings.Trim(string(data), string(data[:1])) != "" {
			t.Fatalf("torn: %d bytes", len(data))
		}
	}
	writers.Wait()
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	if err := writeAtomic(filepath.Join(dir, "d"), nil, 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("left: %v", entries)
	}
}

type removerFunc func(ctx context.Context, root, id, bundle string) error

func (f removerFunc) Remove(ctx context.Context, root, id, bundle string) error {
	return f(ctx, root, id, bundle)
}

// TestCleanupInTime has the engine hang in a call that knows no context, and
// wait in one that does: there is time left for the rest.
func TestCleanupInTime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a root filesystem")
	}
	for name, heeds := range map[string]bool{"heeds its context": true, "hangs": false} {
		dir := bundle(t, ownPIDs)
		target := filepath.Join(dir, rootfsDir)
		must(t, os.MkdirAll(target, 0o700))
		must(t, unix.Mount("cleanup-test", target, "tmpfs", 0, ""))
		hung := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), 3*afterRemoval)
		ends, _ := ctx.Deadline()
		_, _, err := Cleanup(ctx, removerFunc(func(ctx context.Context, _, _, _ string) error {
			if until, ok := ctx.Deadline(); !ok || ends.Sub(until) < afterRemoval {
				t.Errorf("%s: the removal may take until %v, all until %v", name, until, ends)
			}
			if !heeds {
				<-hung
			}
			<-ctx.Done()
			return ctx.Err()
		}), "ns", "c", dir)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if unix.Unmount(target, 0) == nil {
			t.Errorf("%s: the root filesystem was still attached", name)
		}
		close(hung)
		cancel()
	}
}

func TestCleanup(t *testing.T) {
	var asked []string
	var fails error
	remover := removerFunc(func(_ context.Context, root, id, bundle string) error {
		asked = append(asked, root+" "+id+" "+filepath.Base(bundle))
		return fails
	})
	dir := filepath.Join(t.TempDir(), "b")
	// Without a bundle.
	pid, exit, err := Cleanup(t.Context(), remover, "ns", "c", dir)
	if err != nil || pid != 0 || exit.Status != 137 || time.Since(exit.At) > time.Minute {
		t.Errorf("%d %v %v", pid, exit, err)
	}
	// With a shim that died before init did.
	must(t, os.Mkdir(dir, 0o700))
	must(t, writeOptions(dir, Options{Settings: Settings{Root: "/own"}}))
	must(t, writeInitPid(dir, 5))
	if pid, exit, err := Cleanup(t.Context(), remover, "ns", "c", dir); err != nil || pid != 5 || exit.Status != 137 {
		t.Errorf("%d %v %v", pid, exit, err)
	}
	// With one that noted the exit.
	must(t, writeExit(dir, 6, Exit{Status: 3, At: time.Unix(1, 0)}))
	for range 2 {
		if pid, exit, err := Cleanup(t.Context(), remover, "ns", "c", dir); err != nil || pid != 6 || exit.Status != 3 || !exit.At.Equal(time.Unix(1, 0)) {
			t.Errorf("%d %v %v", pid, exit, err)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, exitFile), []byte("{"), 0o600))
	if pid, exit, err := Cleanup(t.Context(), remover, "ns", "c", dir); err != nil || pid != 5 || exit.Status != 137 {
		t.Errorf("%d %v %v", pid, exit, err)
	}
	fails = errFake
	if _, _, err := Cleanup(t.Context(), remover, "ns", "c", dir); !errors.Is(err, errFake) {
		t.Error(err)
	}
	if asked[0] != "/run/containerd/runc/ns c b" || asked[1] != "/own/ns c b" {
		t.Errorf("%q", asked)
	}
}
