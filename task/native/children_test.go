package native

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// Every process has its own waiter, libcontainer its own for its helpers and
// the shim for other children: nobody takes another's exit.
func TestEveryChildIsWaitedForOnce(t *testing.T) {
	c := run(t, specOf(newID(), "sleep", "1000"))
	stop, others := make(chan struct{}), sync.WaitGroup{}
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := exec.Command(busybox, "true").Run(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var clients sync.WaitGroup
	for client := range 2 {
		clients.Go(func() {
			for n := range 25 {
				want := uint32(client*25 + n)
				if got := c.exec("sh", "-c", fmt.Sprint("exit ", want)).Status(t); got != want {
					t.Errorf("exit status %d, want %d", got, want)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	others.Wait()
}

// Nor that of libcontainer's helpers for a user namespace that a container joins
// and for idmapped mounts.
func TestHelpersAreWaitedForOnce(t *testing.T) {
	requireContainers(t)
	volume := t.TempDir()
	must(t, unix.Mount("tmpfs", volume, "tmpfs", 0, "mode=755")) // an overlay cannot be idmapped
	t.Cleanup(func() { must(t, unix.Unmount(volume, 0)) })
	must(t, os.WriteFile(filepath.Join(volume, "file"), nil, 0o644))
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	spec := func(ns specs.LinuxNamespace, mapping []specs.LinuxIDMapping, args ...string) *specs.Spec {
		s := specOf(newID(), args...)
		s.Linux.Namespaces = append(s.Linux.Namespaces, ns)
		s.Linux.UIDMappings, s.Linux.GIDMappings = mapping, mapping
		s.Mounts = append(s.Mounts, specs.Mount{
			Destination: "/mnt", Type: "bind", Source: volume, Options: []string{"bind", "idmap"}, UIDMappings: ids, GIDMappings: ids,
		})
		return s
	}
	first := runMapped(t, spec(specs.LinuxNamespace{Type: specs.UserNamespace}, ids, "sleep", "1000"))
	var starting sync.WaitGroup
	for range 2 {
		starting.Go(func() {
			for range 5 {
				joined := specs.LinuxNamespace{Type: specs.UserNamespace, Path: fmt.Sprintf("/proc/%d/ns/user", first.init.Pid())}
				c := runMapped(t, spec(joined, nil, shell("[ $(stat -c %u /mnt/file) = 0 ] && exit 7")...))
				if s := c.init.Status(t); s != 7 {
					t.Errorf("exit status %d", s)
				}
			}
		})
	}
	starting.Wait()
	if zombies := zombieChildren(t); len(zombies) > 0 {
		t.Errorf("zombies: %v", zombies)
	}
}

// runMapped runs a container whose root is not the host's, to which the way to
// its root filesystem is open.
func runMapped(t *testing.T, spec *specs.Spec) *container {
	t.Helper()
	r := request(t, spec)
	must(t, os.Chmod(filepath.Dir(r.Bundle), 0o711))
	c := createFrom(t, r)
	must(t, c.Start(t.Context()))
	return c
}

// An exec needs more processes, for the threads of libcontainer's init, than
// its program does. Where there may be no more it fails, unless they were there
// before it came under the limit; either way it leaves nothing, and the
// container stays.
func TestExecBeyondPidsLimit(t *testing.T) {
	c := run(t, specOf(newID(), "sleep", "1000"))
	limit := func(n int64) {
		t.Helper()
		must(t, c.Update(t.Context(), &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}}))
	}
	limit(1)
	noGrowth(t, 8, func() {
		child, err := c.Exec(t.Context(), processSpec("true"), task.Files{})
		if err == nil {
			wait(child).Status(t)
		} else if !strings.HasPrefix(err.Error(), "exec failed: ") {
			t.Error(err)
		}
	})
	if zombies := zombieChildren(t); len(zombies) > 0 {
		t.Errorf("zombies: %v", zombies)
	}
	limit(100)
	if s := c.exec("true").Status(t); s != 0 {
		t.Errorf("exit status %d below the limit", s)
	}
	if c.init.Gone() {
		t.Error("init has ended")
	}
}
