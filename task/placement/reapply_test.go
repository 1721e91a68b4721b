package placement

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/cgroups"
	"containerd-shim-numa-v1/numa/cpuset"
)

// TestFollowsTheMachine has a CPU go off line and come back while a shim
// lives.
func TestFollowsTheMachine(t *testing.T) {
	s := small(t)
	nudged := 0
	placer := New(s, func() { nudged++ })
	place := func(id, text string) *Placed {
		t.Helper()
		p, err := placer.Place(t.Context(), Container{ID: id, Bundle: t.TempDir(), Spec: parse(t, text), Settings: s})
		must(t, err)
		if p == nil {
			t.Fatalf("%s: unplaced", id)
		}
		t.Cleanup(func() { p.Release(context.Background()) })
		return p
	}
	const onNode1 = `{"linux":{"resources":{"cpu":{"cpus":"2-3","shares":100}}}}`
	old := place("old", onNode1)
	for _, now := range []struct {
		online, node1 string
	}{{"0-2", "2"}, {"0-3", "2-3"}} {
		nudged = 0
		s.write(t, "cpu/online", now.online)
		s.write(t, "node/node1/cpulist", now.node1)
		if p := place("new"+now.node1, onNode1); p.cpus.String() != now.node1 {
			t.Errorf("CPUs %s are online: a container is on %s", now.online, p.cpus)
		}
		if nudged != 1 {
			t.Errorf("CPUs %s are online: told %d times", now.online, nudged)
		}
		var got string
		old.Reapply(t.Context(), func(_ context.Context, r *specs.LinuxResources) error {
			got = r.CPU.Cpus
			return nil
		})
		if got != now.node1 || old.cpus.String() != now.node1 {
			t.Errorf("CPUs %s are online: the container that is there moved to %q, is on %s", now.online, got, old.cpus)
		}
	}
	// What cannot be read any more is as it was.
	must(t, os.Remove(filepath.Join(s.Sysfs, "devices/system/cpu/online")))
	if p := place("blind", onNode1); p.cpus.String() != "2-3" {
		t.Errorf("without sysfs on CPUs %s", p.cpus)
	}
}

// v1cpuset is a cgroup of version 1 below another one, on this machine.
type v1cpuset struct{ parent, own string }

func newV1cpuset(t *testing.T) v1cpuset {
	t.Helper()
	const root = "/sys/fs/cgroup/cpuset"
	if _, err := os.Stat(filepath.Join(root, "cpuset.cpus")); err != nil {
		t.Skipf("needs the cpuset controller of cgroup v1: %v", err)
	}
	if online := readList(t, filepath.Join(root, "cpuset.cpus")); os.Geteuid() != 0 || !cpuset.Range(0, 1).IsSubset(online) {
		t.Skipf("needs root and CPUs 0 and 1, there are %s", online)
	}
	parent, err := os.MkdirTemp(root, "numa-placement-test-")
	must(t, err)
	c := v1cpuset{parent: parent, own: filepath.Join(parent, "c")}
	must(t, os.Mkdir(c.own, 0o755))
	t.Cleanup(func() { must(t, os.Remove(c.own)); must(t, os.Remove(parent)) })
	for _, dir := range []string{parent, c.own} {
		must(t, c.give(dir, "0-1"))
		must(t, os.WriteFile(filepath.Join(dir, "cpuset.mems"), []byte("0"), 0))
	}
	return c
}

// path is that of the container in a spec.
func (c v1cpuset) path() string { return strings.TrimPrefix(c.own, "/sys/fs/cgroup/cpuset") }

func (v1cpuset) give(dir, cpus string) error {
	return os.WriteFile(filepath.Join(dir, "cpuset.cpus"), []byte(cpus+"\n"), 0)
}

// hotplug leaves the cgroups as the kernel does of which a CPU was offline for
// a while.
func (c v1cpuset) hotplug(t *testing.T, left string) {
	t.Helper()
	must(t, c.give(c.own, left))
	must(t, c.give(c.parent, left))
}

func readList(t *testing.T, path string) cpuset.Set {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	s, err := cpuset.Parse(string(text))
	must(t, err)
	return s
}

// TestGivesBackWhatV1Took has a container of cgroup v1 lose a CPU, and get it
// again as soon as the cgroup above has it.
func TestGivesBackWhatV1Took(t *testing.T) {
	for _, policy := range []string{"shared", "dedicated"} {
		c := newV1cpuset(t)
		s := Settings{Ledger: filepath.Join(t.TempDir(), "ledger"), CPUPolicy: policy}
		quota := map[string]string{"shared": "100000", "dedicated": "200000"}[policy]
		spec := parse(t, `{"linux":{"cgroupsPath":"`+c.path()+`","resources":{"cpu":{"quota":`+quota+`,"period":100000,"cpus":"0-1"}}}}`)
		p, err := New(s, nil).Place(t.Context(), Container{ID: "c", Bundle: t.TempDir(), Spec: spec, Settings: s})
		must(t, err)
		t.Cleanup(func() { p.Release(context.Background()) })
		cg, err := cgroups.LoadPaths(map[string]string{"cpuset": c.own})
		must(t, err)
		calls := 0
		apply := func(_ context.Context, r *specs.LinuxResources) error {
			calls++
			return c.give(c.own, r.CPU.Cpus)
		}
		p.Confirm(t.Context(), os.Getpid(), cg, apply)
		if p.cpus.String() != "0-1" || (policy == "dedicated") != (p.claim.Owned.String() == "0-1") {
			t.Fatalf("%s: placed on %s, owns %q", policy, p.cpus, p.claim.Owned)
		}
		is := func(when, want string, tries int) {
			t.Helper()
			calls = 0
			p.Reapply(t.Context(), apply)
			if got := readList(t, filepath.Join(c.own, "cpuset.cpus")); got.String() != want || calls != tries {
				t.Errorf("%s, %s: has CPUs %s after %d writes, want %s after %d", policy, when, got, calls, want, tries)
			}
		}
		is("nothing happened", "0-1", 0)
		c.hotplug(t, "0")
		is("the cgroup above lacks it", "0", 0)
		must(t, c.give(c.parent, "0-1"))
		is("the cgroup above has it", "0-1", 1)
		is("later", "0-1", 0)
	}
}

// TestTakesWhatV1Left has CPUs come to be a container's that the cgroup above
// has lost in part.
func TestTakesWhatV1Left(t *testing.T) {
	c := newV1cpuset(t)
	s := Settings{Ledger: filepath.Join(t.TempDir(), "ledger")}
	spec := parse(t, `{"linux":{"cgroupsPath":"`+c.path()+`","resources":{"cpu":{"shares":100}}}}`)
	p, err := New(s, nil).Place(t.Context(), Container{ID: "c", Bundle: t.TempDir(), Spec: spec, Settings: s})
	must(t, err)
	t.Cleanup(func() { p.Release(context.Background()) })
	cg, err := cgroups.LoadPaths(map[string]string{"cpuset": c.own})
	must(t, err)
	apply := func(_ context.Context, r *specs.LinuxResources) error { return c.give(c.own, r.CPU.Cpus) }
	p.Confirm(t.Context(), os.Getpid(), cg, apply)
	// Another that owned CPU 1 has gone, and CPU 0 was offline meanwhile.
	p.cpus = cpuset.Of(0)
	c.hotplug(t, "1")
	p.Reapply(t.Context(), apply)
	if got := readList(t, filepath.Join(c.own, "cpuset.cpus")); got.String() != "1" || p.lacking.String() != "0" {
		t.Errorf("has CPUs %s, lacks %q", got, p.lacking)
	}
	if m := noted(t, p).Missed; len(m) != 1 || !strings.Contains(m[0], "CPUs 0") {
		t.Errorf("noted as missed %q", m)
	}
	must(t, c.give(c.parent, "0-1"))
	p.Reapply(t.Context(), apply)
	if got := readList(t, filepath.Join(c.own, "cpuset.cpus")); got.String() != "0-1" || len(noted(t, p).Missed) > 0 {
		t.Errorf("has CPUs %s, missed %q", got, noted(t, p).Missed)
	}
}

// TestUnplacedByV1 has a container lose its last CPU, and with it its
// processes.
func TestUnplacedByV1(t *testing.T) {
	c := newV1cpuset(t)
	s := Settings{Ledger: filepath.Join(t.TempDir(), "ledger"), CPUPolicy: "dedicated"}
	spec := parse(t, `{"linux":{"cgroupsPath":"`+c.path()+`","resources":{"cpu":{"quota":100000,"period":100000,"cpus":"1"}}}}`)
	p, err := New(s, nil).Place(t.Context(), Container{ID: "c", Bundle: t.TempDir(), Spec: spec, Settings: s})
	must(t, err)
	t.Cleanup(func() { p.Release(context.Background()) })
	must(t, c.give(c.own, "1"))
	cg, err := cgroups.LoadPaths(map[string]string{"cpuset": c.own})
	must(t, err)
	apply := func(context.Context, *specs.LinuxResources) error { t.Error("its cgroup is written"); return nil }
	p.Confirm(t.Context(), os.Getpid(), cg, apply)
	if p.claim.Owned.String() != "1" {
		t.Fatalf("owns %q", p.claim.Owned)
	}
	must(t, c.give(c.own, "")) // as the kernel does when CPU 1 goes off line
	for range 2 {
		p.Reapply(t.Context(), apply)
		if r := noted(t, p); r.Fault == "" || !r.Claim.Owned.IsEmpty() {
			t.Errorf("noted %+v", r)
		}
	}
}
