package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// The tests of this file, of children_test.go and of devices_test.go each hold a
// cure of doc.go.
// Others are held by TestHandover (files that init inherits), the test of a late
// hook in TestCreateFails, TestExecsAgainstDyingInit (children of failed starts),
// near_test.go and the tests of restoring; that the shim itself locks its main
// thread is held by TestMainThreadIsNobodys of the command.

func memoryLimit(n int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n}}
}

func TestExecAfterUpdate(t *testing.T) {
	c := run(t, specOf(newID(), "sleep", "1000"))
	for range 2 {
		must(t, c.Update(t.Context(), memoryLimit(64<<20)))
		if s := c.exec("true").Status(t); s != 0 {
			t.Errorf("exit status %d", s)
		}
	}
}

func TestFailedUpdateKeepsOldValues(t *testing.T) {
	requireV1(t)
	limit := int64(64 << 20)
	spec := specOf(newID(), "sleep", "1000")
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	c := run(t, spec)
	saved := func() int64 {
		var state struct {
			Config struct {
				Cgroups struct {
					Memory int64 `json:"memory"`
				} `json:"cgroups"`
			} `json:"config"`
		}
		data, err := os.ReadFile(filepath.Join(c.root, c.id, "state.json"))
		must(t, err)
		must(t, json.Unmarshal(data, &state))
		return state.Config.Cgroups.Memory
	}
	// The memory controller comes before that of the CPU, which refuses.
	shares, more, tooLittle := uint64(512), int64(128<<20), int64(1)
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &tooLittle}, Memory: &specs.LinuxMemory{Limit: &more}}
	if err := c.Update(t.Context(), r); err == nil {
		t.Fatal("a quota below the kernel's least was set")
	}
	if got := c.cgroupFile("memory", "memory.limit_in_bytes"); got != fmt.Sprint(limit) || saved() != limit {
		t.Errorf("limit %s, saved %d, after a failed update", got, saved())
	}
	must(t, c.Update(t.Context(), &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares}}))
	if got := c.cgroupFile("memory", "memory.limit_in_bytes"); got != fmt.Sprint(limit) || saved() != limit {
		t.Errorf("limit %s, saved %d, after an update of something else", got, saved())
	}
	if got := c.cgroupFile("cpu", "cpu.shares"); got != "512" {
		t.Errorf("shares %s", got)
	}
	if s := c.exec("true").Status(t); s != 0 {
		t.Errorf("exec: exit status %d", s)
	}
}

// Device rules that another has added survive updates, failed ones as well.
func TestUpdateLeavesDevices(t *testing.T) {
	requireV1(t)
	c := run(t, specOf(newID(), "sleep", "1000"))
	const rule = "c 10:229 rwm" // /dev/fuse, which no container may use by itself
	must(t, os.WriteFile(c.cgroupPath("devices", "devices.allow"), []byte(rule), 0))
	must(t, c.Update(t.Context(), memoryLimit(64<<20)))
	if list := c.cgroupFile("devices", "devices.list"); !strings.Contains(list, rule) {
		t.Errorf("after an update: %q", list)
	}
	if c.Update(t.Context(), &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "999999"}}) == nil {
		t.Fatal("a CPU that there is not was set")
	}
	if list := c.cgroupFile("devices", "devices.list"); !strings.Contains(list, rule) {
		t.Errorf("after a failed update: %q", list)
	}
}

// Updates at the same time do not take each other back.
func TestConcurrentUpdates(t *testing.T) {
	requireV1(t)
	c := run(t, specOf(newID(), "sleep", "1000"))
	for n := range 10 {
		shares, pids := uint64(100+n), int64(50+n)
		var both sync.WaitGroup
		for _, r := range []*specs.LinuxResources{
			{CPU: &specs.LinuxCPU{Shares: &shares}}, {Pids: &specs.LinuxPids{Limit: &pids}},
		} {
			both.Go(func() {
				if err := c.Update(t.Context(), r); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if s, p := c.cgroupFile("cpu", "cpu.shares"), c.cgroupFile("pids", "pids.max"); s != fmt.Sprint(shares) || p != fmt.Sprint(pids) {
			t.Fatalf("%d: shares %s, pids %s", n, s, p)
		}
	}
}

// Delete does not remove what an update is writing to.
func TestDeleteAwaitsUpdate(t *testing.T) {
	c := run(t, specOf(newID(), "true"))
	c.init.Status(t)
	c.updating <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Delete(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("during an update: %v", err)
	}
	if _, err := c.load(); err != nil {
		t.Error(err)
	}
	<-c.updating
	must(t, c.Delete(t.Context()))
}

// Execs that hang, as they do in a frozen cgroup, hold nothing else up.
func TestHangingExecsBlockNothing(t *testing.T) {
	requireV1(t)
	c := run(t, specOf(newID(), "sleep", "1000"))
	must(t, c.Pause(t.Context()))
	var execs sync.WaitGroup
	for range 3 {
		execs.Go(func() {
			child, err := c.Exec(t.Context(), processSpec("true"), task.Files{})
			if err == nil {
				err = statusError(wait(child).Status(t))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "execs in the frozen cgroup", func() bool {
		pids, err := c.Pids()
		must(t, err)
		return len(pids) > 1
	})
	answered := make(chan error, 1)
	go func() {
		err := c.init.Signal(0)
		if err == nil {
			err = c.Update(t.Context(), memoryLimit(256<<20))
		}
		if err == nil {
			err = c.Resume(t.Context())
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		must(t, err)
	case <-time.After(20 * time.Second):
		t.Error("blocked behind execs that hang")
		must(t, os.WriteFile(c.cgroupPath("freezer", "freezer.state"), []byte("THAWED"), 0))
	}
	execs.Wait()
}

func statusError(s uint32) error {
	if s == 0 {
		return nil
	}
	return fmt.Errorf("exit status %d", s)
}

// No thread stays in a container's mount namespace, which would hold its
// mounts until the shim ends.
func TestNoThreadStaysInContainer(t *testing.T) {
	requireContainers(t)
	own, err := os.Readlink("/proc/thread-self/ns/mnt")
	must(t, err)
	for range 30 {
		spec := specOf(newID(), "true")
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: t.TempDir(), Options: []string{"bind"}})
		c := run(t, spec)
		c.init.Status(t)
		c.remove()
	}
	eventually(t, "all threads in the shim's mount namespace", func() bool {
		links, err := filepath.Glob("/proc/self/task/*/ns/mnt")
		must(t, err)
		for _, link := range links {
			if ns, err := os.Readlink(link); err == nil && ns != own {
				return false
			}
		}
		return true
	})
}

// Start of an init that has died ends at once and leaves nothing behind.
func TestStartOfDeadInit(t *testing.T) {
	noGrowth(t, 8, func() {
		c := create(t, specOf(newID(), "sleep", "1000"))
		must(t, c.init.Signal(unix.SIGKILL))
		c.init.Status(t)
		before := time.Now()
		err := c.Start(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "runc start failed: ") {
			t.Errorf("start: %v", err)
		}
		if took := time.Since(before); took > time.Second {
			t.Errorf("took %s", took)
		}
		c.remove()
	})
}

// It may also die while Start waits for it: here it is frozen until then.
func TestInitDiesDuringStart(t *testing.T) {
	requireV1(t)
	noGrowth(t, 4, func() {
		c := create(t, specOf(newID(), "sleep", "1000"))
		must(t, c.Pause(t.Context()))
		started := make(chan error)
		go func() { started <- c.Start(t.Context()) }()
		select {
		case err := <-started:
			t.Errorf("start of a frozen init: %v", err)
			return
		case <-time.After(2 * startPoll):
		}
		must(t, c.init.Signal(unix.SIGKILL))
		must(t, c.Resume(t.Context()))
		if err := <-started; err == nil {
			t.Error("started a dead init")
		}
		if s := c.init.Status(t); s != 137 {
			t.Errorf("exit status %d", s)
		}
		c.remove()
	})
}

// Hooks are told of the bundle, not of the shim's working directory.
func TestHooksGetTheBundle(t *testing.T) {
	spec := specOf(newID(), "true")
	state := filepath.Join(t.TempDir(), "state")
	spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: busybox, Args: []string{"sh", "-c", "cat > " + state}}}}
	c := create(t, spec)
	data, err := os.ReadFile(state)
	must(t, err)
	var got specs.State
	must(t, json.Unmarshal(data, &got))
	if got.Bundle != c.bundle || got.ID != c.id || got.Pid != c.init.Pid() {
		t.Errorf("%+v", got)
	}
}

// No descriptor of the shim reaches a container.
func TestDescriptorsOfProcesses(t *testing.T) {
	c := run(t, specOf(newID(), "sleep", "1000"))
	for _, pid := range []int{c.init.Pid(), c.exec("sleep", "1000").Pid()} {
		eventually(t, "the program runs", func() bool {
			cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			must(t, err)
			return strings.HasPrefix(string(cmdline), "sleep")
		})
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		must(t, err)
		if len(fds) != 3 {
			for _, fd := range fds {
				target, _ := os.Readlink(fd)
				t.Errorf("%s %s", fd, target)
			}
		}
	}
}
