package numa

import (
	"io/fs"
	"testing"
	"testing/fstest"
	"time"
)

// TestMachineFollows has CPUs and nodes come and go, and nothing, between two
// looks.
func TestMachineFollows(t *testing.T) {
	fsys := with(t, "r5.metal")
	c := &counting{FS: fsys}
	m := NewMachine(ownDir(t), c, boot)
	last, err := m.Topology()
	if err != nil {
		t.Fatal(err)
	}
	for _, edit := range []struct{ path, text string }{
		{cpuDir + "online", "0-94"},
		{cpuDir + "online", "0-95"},
		{cpuDir + "isolated", "1"},
		{nodeDir + "has_memory", "0"},
		{nodeDir + "online", "0"},
	} {
		c.opened = 0
		if same, err := m.Topology(); err != nil || same != last || c.opened > 4 {
			t.Errorf("before %s became %q: %v, %d files opened; another topology: %t", edit.path, edit.text, err, c.opened, same != last)
		}
		fsys[edit.path] = &fstest.MapFile{Data: []byte(edit.text)}
		want, err := Discover(fsys)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Topology()
		if err != nil || got == last || got.Hash != want.Hash || got.Nodes[len(got.Nodes)-1].Memory != want.Nodes[len(want.Nodes)-1].Memory {
			t.Errorf("%s became %q: %v\n%+v\nwant %+v", edit.path, edit.text, err, got, want)
		}
		last = got
	}
	c.FS = fstest.MapFS{}
	if _, err := m.Topology(); err == nil {
		t.Error("no error without sysfs")
	}
	c.FS = fs.FS(fsys)
	if got, err := m.Topology(); err != nil || got != last {
		t.Errorf("sysfs is back: %v; another topology: %t", err, got != last)
	}
}

// TestMachineLooksAgain at one that has not told all, for a while.
func TestMachineLooksAgain(t *testing.T) {
	for _, late := range []bool{false, true} {
		fsys := with(t, "r5.metal", cpuDir+"cpu5/cache/*", absent)
		fsys[cpuDir+"cpu0/cache/index3/shared_cpu_list"].Data = []byte("0-4,6-23,48-71")
		m := NewMachine(ownDir(t), fsys, boot)
		early, err := m.Topology()
		if err != nil || early.cachesTold() {
			t.Fatalf("%v; all caches are known", err)
		}
		if again, err := m.Topology(); err != nil || again != early {
			t.Errorf("%v; another topology of the same machine", err)
		}
		for path, file := range with(t, "r5.metal") {
			fsys[path] = file
		}
		m.since = time.Now()
		if late {
			m.since = m.since.Add(-2 * settling)
		}
		if got, err := m.Topology(); err != nil || got.cachesTold() == late {
			t.Errorf("late %t: %v; all caches are known: %t", late, err, got.cachesTold())
		}
	}
}
