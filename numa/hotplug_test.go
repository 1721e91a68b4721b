package numa

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// hotplugEnv lets the test take CPUs of the machine offline: it is for virtual
// machines, test/vm sets it.
const hotplugEnv = "NUMA_TEST_HOTPLUG"

// TestDiscoverWhileHotplugged takes the last CPU offline and online all the
// time while the machine is read.
func TestDiscoverWhileHotplugged(t *testing.T) {
	if os.Getenv(hotplugEnv) == "" {
		t.Skipf("takes a CPU of the machine offline: only with %s set", hotplugEnv)
	}
	fsys := os.DirFS("/sys")
	before, err := Discover(fsys)
	if err != nil {
		t.Fatal(err)
	}
	const times = 50
	control := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", before.Online.Max())
	done := make(chan error)
	go func() {
		var err error
		for range times {
			err = errors.Join(err, os.WriteFile(control, []byte("0"), 0), os.WriteFile(control, []byte("1"), 0))
		}
		done <- err
	}()
	dir := ownDir(t)
	fewer, all, other, changed := 0, 0, 0, 0
	for toggling := true; toggling; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			toggling = false
		default:
		}
		m, err := Discover(fsys)
		switch {
		case errors.Is(err, errChanged):
			changed++
			continue
		case err != nil:
			t.Fatal(err)
		case m.Hash == before.Hash:
			all++
		case m.Online.Equal(before.Online):
			other++ // the caches of a CPU come some time after it
		default:
			fewer++
		}
		if err := m.check(); err != nil {
			t.Error(err)
		}
		if _, err := loadCached(dir, fsys, "boot"); err != nil && !errors.Is(err, errChanged) {
			t.Error(err)
		}
	}
	t.Logf("all CPUs %d times, without all caches %d times, fewer %d times, changing %d times", all, other, fewer, changed)
	// What was remembered on the way must be no different from the truth.
	for range 2 {
		if m, err := loadCached(dir, fsys, "boot"); err != nil || m.Hash != before.Hash {
			t.Errorf("in the end %+v, %v\nat first %+v", m, err, before)
		}
	}
}
