package native

import (
	"context"
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
	"containerd-shim-numa-v1/task/enginetest"
)

// Execs that are being started when init dies fail, and what they leave does
// not keep init from finishing its exit.
func TestExecsAgainstDyingInit(t *testing.T) {
	const rounds, execs = 5, 8
	for round := range rounds {
		c := run(t, specOf(newID(), "sleep", "1000"))
		var starting sync.WaitGroup
		for range execs {
			starting.Go(func() {
				child, err := c.Exec(t.Context(), processSpec("sleep", "1000"), task.Files{})
				if err == nil {
					wait(child).Status(t)
				}
			})
		}
		time.Sleep(time.Duration(round) * 10 * time.Millisecond)
		must(t, c.init.Signal(unix.SIGKILL))
		if s := c.init.Status(t); s != 137 {
			t.Errorf("exit status of init %d", s)
		}
		starting.Wait()
		c.remove()
	}
	if zombies := zombieChildren(t); len(zombies) > 0 {
		t.Errorf("zombies: %v", zombies)
	}
}

// A create whose hook hangs ends when nobody waits for it any more, and so does
// the hook, with the processes that hold its output.
func TestCreateIsGivenUp(t *testing.T) {
	mark := fmt.Sprint(1000, ".", os.Getpid()) // what is slept, to be found by
	spec := specOf(newID(), "true")
	r := request(t, spec)
	begun := filepath.Join(r.Bundle, "begun")
	script := fmt.Sprintf("sleep %s & echo > %s; sleep %s; true", mark, begun, mark)
	spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}}}}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	created := make(chan error, 1)
	go func() {
		_, err := Engine{}.Create(ctx, r)
		created <- err
	}()
	eventually(t, "the hook runs", func() bool { _, err := os.Stat(begun); return err == nil })
	eventually(t, "both of its children run", func() bool { return sleeping(t, mark) == 2 })
	cancel()
	select {
	case err := <-created:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("create: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the create does not end")
	}
	eventually(t, "the hook's children end", func() bool { return sleeping(t, mark) == 0 })
	if left := cgroupDirs(spec.Linux.CgroupsPath); len(left) > 0 {
		t.Errorf("cgroups left: %q", left)
	}
	if zombies := zombieChildren(t); len(zombies) > 0 {
		t.Errorf("zombies: %v", zombies)
	}
}

// A create for which nobody waited when it began does not stay in its hooks.
func TestCreateIsGivenUpBefore(t *testing.T) {
	spec := specOf(newID(), "true")
	r := request(t, spec)
	hook := specs.Hook{Path: "/bin/sleep", Args: []string{"sleep", "1000"}}
	spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{hook}}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	created := make(chan error, 1)
	go func() {
		_, err := Engine{}.Create(ctx, r)
		created <- err
	}()
	select {
	case err := <-created:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("create: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the create does not end")
	}
	if left := cgroupDirs(spec.Linux.CgroupsPath); len(left) > 0 {
		t.Errorf("cgroups left: %q", left)
	}
	if zombies := zombieChildren(t); len(zombies) > 0 {
		t.Errorf("zombies: %v", zombies)
	}
}

// Whenever a create or an exec is given up, nothing of it is left, and a
// container that is there runs on.
func TestGivenUpAtAnyTime(t *testing.T) {
	const moments, apart = 24, time.Millisecond
	bystander := run(t, specOf(newID(), "sleep", "1000"))
	tried := func(moment int, do func(context.Context) (task.Child, error)) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(moment)*apart)
		defer cancel()
		switch child, err := do(ctx); {
		case err == nil: // it was quicker
			must(t, child.Signal(unix.SIGKILL))
			child.Wait()
		case !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("given up after %d × %v: %v", moment, apart, err)
		}
	}
	for moment := range moments {
		tried(moment, func(ctx context.Context) (task.Child, error) {
			return bystander.Exec(ctx, processSpec("sleep", "1000"), task.Files{})
		})
		r := request(t, specOf(newID(), "true"))
		var created task.Instance
		tried(moment, func(ctx context.Context) (_ task.Child, err error) {
			if created, err = (Engine{}).Create(ctx, r); err != nil {
				return nil, err
			}
			return created.Init(), nil
		})
		if created != nil {
			must(t, created.Delete(t.Context()))
		}
		enginetest.NothingLeft(t, r)
	}
	if zombies := zombieChildren(t); len(zombies) > 0 {
		t.Errorf("zombies: %v", zombies)
	}
	if pids, err := bystander.Pids(); err != nil || len(pids) != 1 || pids[0] != bystander.Init().Pid() {
		t.Errorf("processes of the container that is there: %v, %v, want its init %d alone", pids, err, bystander.Init().Pid())
	}
}

// sleeping counts the processes that run "sleep mark".
func sleeping(t *testing.T, mark string) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, file := range files {
		if cmdline, err := os.ReadFile(file); err == nil && strings.HasSuffix(string(cmdline), "sleep\x00"+mark+"\x00") {
			n++
		}
	}
	return n
}
