package native

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/task"
)

// A thread that works near some CPUs is on these, and no other thread is, then
// or later.
func TestNear(t *testing.T) {
	all := affinity(t, "/proc/thread-self")
	if all.Len() < 2 {
		t.Skip("needs two CPUs, to be on one of them")
	}
	one := cpuset.Of(all.Max())
	failed := errors.New("failed")
	for _, c := range []struct {
		name       string
		near, want cpuset.Set
		err        error
	}{
		{"one", one, one, nil},
		{"failing", one, one, failed},
		{"none", cpuset.Set{}, all, nil},
		{"not there", cpuset.Of(cpuset.MaxID), all, nil},
	} {
		var got cpuset.Set
		var tid int
		err := near(c.near, func() error {
			got, tid = affinity(t, "/proc/thread-self"), unix.Gettid()
			return c.err
		})
		if !got.Equal(c.want) || !errors.Is(err, c.err) {
			t.Errorf("%s: worked on CPUs %s, %v; want %s, %v", c.name, got, err, c.want, c.err)
		}
		if !c.near.IsEmpty() {
			eventually(t, "the thread ends", func() bool { return unix.Tgkill(os.Getpid(), tid, 0) == unix.ESRCH })
		}
	}
	noThreadOn(t, one)
}

// What the shim creates near some CPUs runs where its cpuset says: the whole of
// it, and nothing else. So do execs.
func TestNearDoesNotLeak(t *testing.T) {
	requireContainers(t)
	all := affinity(t, "/proc/self")
	if all.Len() < 2 {
		t.Skip("needs two CPUs, to be on one of them")
	}
	first, last := cpuset.Of(all.Min()), cpuset.Of(all.Max())
	for _, c := range []struct {
		name string
		cpus string // of the spec
		want cpuset.Set
	}{
		{"no cpuset", "", all},
		{"another CPU", last.String(), last},
		{"the same", first.String(), first},
	} {
		spec := specOf(newID(), "sleep", "1000")
		spec.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: c.cpus}
		r := request(t, spec)
		r.Near = first
		i := createFrom(t, r)
		check := func(what string, child task.Child) {
			if got := affinity(t, fmt.Sprintf("/proc/%d", child.Pid())); !got.Equal(c.want) {
				t.Errorf("%s: %s is on CPUs %s, want %s", c.name, what, got, c.want)
			}
		}
		check("created init", i.Init())
		must(t, i.Start(t.Context()))
		check("running init", i.Init())
		e := i.exec("sleep", "1000")
		check("exec", e)
		must(t, e.Signal(unix.SIGKILL))
		e.Status(t)
	}
	noThreadOn(t, first)
}

// affinity is what /proc/<pid>/status says, which is sched_getaffinity(2).
func affinity(t *testing.T, dir string) cpuset.Set {
	t.Helper()
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	must(t, err)
	for line := range strings.Lines(string(status)) {
		if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			set, err := cpuset.Parse(list)
			must(t, err)
			return set
		}
	}
	t.Fatalf("%s: no Cpus_allowed_list", dir)
	return cpuset.Set{}
}

// noThreadOn waits until none of this process's threads keeps to exactly these
// CPUs: those that did so are ending.
func noThreadOn(t *testing.T, cpus cpuset.Set) {
	t.Helper()
	eventually(t, "no thread keeps to CPUs "+cpus.String(), func() bool {
		dirs, err := filepath.Glob("/proc/self/task/*")
		must(t, err)
		return !slices.ContainsFunc(dirs, func(dir string) bool {
			status, err := os.ReadFile(filepath.Join(dir, "status"))
			return err == nil && strings.Contains(string(status), "\nCpus_allowed_list:\t"+cpus.String()+"\n")
		})
	})
}
