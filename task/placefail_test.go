package task

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"containerd-shim-numa-v1/task/placement"
)

// TestFailsOpen spoils what a placement needs: the container runs where it
// would have, unless its policy demands a placement.
func TestFailsOpen(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *machine){
		"no sysfs":               func(t *testing.T, m *machine) { m.sysfs = "/nonexistent" },
		"sysfs of nothing":       func(t *testing.T, m *machine) { m.sysfs = t.TempDir() },
		"ledger is a file":       func(t *testing.T, m *machine) { must(t, os.WriteFile(m.ledger, nil, 0o600)) },
		"ledger is everybody's":  func(t *testing.T, m *machine) { mkdir(t, m.ledger, 0o777) },
		"ledger has no parent":   func(t *testing.T, m *machine) { m.ledger = "/nonexistent/ledger" },
		"ledger is newer":        func(t *testing.T, m *machine) { newer(t, m.ledger) },
		"ledger is a link":       func(t *testing.T, m *machine) { must(t, os.Symlink(t.TempDir(), m.ledger)) },
		"the lock is another's":  func(t *testing.T, m *machine) { lock(t, m.ledger) },
		"CPUs that there aren't": nil,
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			cpu := cpus(4)
			if spoil != nil {
				spoil(t, m)
			} else {
				cpu += `,"cpus":"4000"`
			}
			open, strict := m.shim(placement.Settings{}), m.shim(placement.Settings{Policy: "restricted"})
			i := open.createWith("c", specWith(cpu))
			if env := i.request.Spec.Process.Env; len(env) != 1 {
				t.Errorf("told %q", env)
			}
			if got := cpusOf(i); spoil != nil && got != "" {
				t.Errorf("placed on %q", got)
			}
			open.createWith("d", specWith(cpu))
			failed := 0
			for _, n := range open.placer.Failures() {
				failed += n
			}
			if failed != 2 {
				t.Errorf("%d failures counted: %v", failed, open.placer.Failures())
			}
			request := &taskv3.CreateTaskRequest{ID: "e", Bundle: bundle(t, specWith(cpu))}
			if _, err := strict.Create(t.Context(), request); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "restricted") {
				t.Errorf("demanded: %v", err)
			}
			if len(strict.engine.made) > 0 || !strict.Idle() {
				t.Error("something is left")
			}
			open.end("c")
			open.end("d")
		})
	}
}

func mkdir(t *testing.T, dir string, mode os.FileMode) {
	t.Helper()
	must(t, os.Mkdir(dir, mode))
	must(t, os.Chmod(dir, mode))
}

// newer makes a ledger that a later version has written.
func newer(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	const before, after = "containerd-numa 9999 ", "\nwhatever that is\n"
	sum := crc32.Checksum([]byte(before+after), crc32.MakeTable(crc32.Castagnoli))
	must(t, os.WriteFile(filepath.Join(dir, "state"), fmt.Appendf(nil, "%s%08x%s", before, sum, after), 0o600))
}

// TestReleasesLater deletes a container while the ledger is locked: its place is
// free some time after the ledger is, though nothing else happens.
func TestReleasesLater(t *testing.T) {
	m := newMachine(t)
	r := m.shim(dedicated)
	r.createWith("c", specWith(cpus(4)))
	f, err := os.Open(m.ledger)
	must(t, err)
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	r.end("c")
	if left := m.entries(); len(left) != 1 {
		t.Errorf("in the ledger: %+v", left)
	}
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	eventually(t, "the place is free", func() bool { return len(m.entries()) == 0 })
}

// lock holds the lock of a ledger until the end of the test.
func lock(t *testing.T, dir string) {
	t.Helper()
	mkdir(t, dir, 0o700)
	f, err := os.Open(dir)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
}

// TestDefectiveLedger is rebuilt from what the bundles say.
func TestDefectiveLedger(t *testing.T) {
	// All bundles beside those of its containers are read, so that none of
	// another test, in another process, may be there.
	dir, err := os.MkdirTemp("", "numa-bundles-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	t.Setenv("TMPDIR", dir)
	m := newMachine(t)
	r := m.shim(dedicated)
	a := r.createWith("a", specWith(cpus(3)))
	must(t, os.WriteFile(filepath.Join(m.ledger, "state"), []byte("\x00garbage"), 0o600))
	b := r.createWith("b", specWith(cpus(3)))
	if one, two := set(t, cpusOf(a)), set(t, cpusOf(b)); one.Intersects(two) || two.Len() != 3 {
		t.Errorf("CPUs %s and %s", one, two)
	}
	r.end("a")
	r.end("b")
	m.wantEmpty()
}

func TestCleanupReleases(t *testing.T) {
	m := newMachine(t)
	r := m.shim(dedicated)
	i := r.createWith("a", specWith(cpus(3)))
	must(t, placement.Release(t.Context(), i.request.Bundle))
	m.wantEmpty()
	must(t, placement.Release(t.Context(), i.request.Bundle))
	r.end("a")
}

// TestOptionsLeaveTheNodeAlone sees that a runtime's options count for their
// containers only, and not at all for what is the node's.
func TestOptionsLeaveTheNodeAlone(t *testing.T) {
	node, err := Settings{}.parse([]byte("[placement]\nenv=true\nannotations=['policy','cpu-policy']\n"))
	must(t, err)
	o, err := node.with(options(t, "[placement]\nenv=false\nannotations=['memory-policy']\npolicy='none'\n"))
	must(t, err)
	if *o.Placement.Env || o.Placement.Policy != placement.None || o.Placement.Annotations[0] != "memory-policy" {
		t.Errorf("options %+v", o.Placement)
	}
	if !*node.Placement.Env || node.Placement.Policy != "" || node.Placement.Annotations[0] != "policy" {
		t.Errorf("the node's have become %+v", node.Placement)
	}
	for _, key := range []string{"strategy='pack'", "sysfs='/s'", "ledger='/l'", "core-scheduling=true"} {
		name, _, _ := strings.Cut(key, "=")
		if _, err := node.with(options(t, "placement."+key)); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if _, err := (Settings{}).parse([]byte("placement.policy='best'")); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "placement.policy") {
		t.Errorf("%v", err)
	}
}

func options(t *testing.T, toml string) *anypb.Any {
	t.Helper()
	return marshal(t, &runtimeoptions.Options{ConfigBody: []byte(toml)})
}
