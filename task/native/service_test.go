package native

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"containerd-shim-numa-v1/task"
	"containerd-shim-numa-v1/task/placement"
)

// topics are the events of a service, without their content.
type topics struct {
	mu   sync.Mutex
	list []string
}

func (p *topics) Publish(topic string, _ proto.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, strings.TrimPrefix(topic, "/tasks/"))
}

func (p *topics) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.list)
}

// service makes a Task service on the engine and the request to create a
// container of spec in it.
func service(t *testing.T, spec *specs.Spec) (*task.Service, *topics, *taskv3.CreateTaskRequest) {
	t.Helper()
	r := request(t, spec)
	runc, err := typeurl.MarshalAnyToProto(&options.Options{Root: r.Root})
	must(t, err)
	events := &topics{}
	// The ledger is the machine's.
	unplaced := task.Settings{Placement: placement.Settings{Policy: placement.None}}
	s := task.NewService(task.Config{Namespace: "test", Node: unplaced, Engine: Engine{}, Publisher: events, Shutdown: func() {}})
	t.Cleanup(func() {
		if left := cgroupDirs(spec.Linux.CgroupsPath); len(left) > 0 {
			t.Errorf("cgroups left: %q", left)
		}
		must(t, s.Close(t.Context()))
	})
	return s, events, &taskv3.CreateTaskRequest{ID: r.ID, Bundle: r.Bundle, Options: runc}
}

func wantEvents(t *testing.T, events *topics, want ...string) {
	t.Helper()
	if got := events.all(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// A container with a terminal from its creation to its deletion.
func TestTerminal(t *testing.T) {
	spec := specOf(newID(), shell("read line; echo got $line; exit 3")...)
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}})
	s, events, create := service(t, spec)
	out := filepath.Join(t.TempDir(), "out")
	in := filepath.Join(t.TempDir(), "in")
	must(t, unix.Mkfifo(out, 0o600))
	must(t, unix.Mkfifo(in, 0o600))
	text := make(chan string, 1)
	go func() {
		f, err := os.Open(out)
		if err != nil {
			text <- err.Error()
			return
		}
		defer f.Close()
		data, _ := io.ReadAll(f)
		text <- string(data)
	}()
	create.Terminal, create.Stdin, create.Stdout = true, in, out
	ctx := t.Context()
	_, err := s.Create(ctx, create)
	must(t, err)
	_, err = s.ResizePty(ctx, &taskv3.ResizePtyRequest{ID: create.ID, Width: 99, Height: 33})
	must(t, err)
	_, err = s.Start(ctx, &taskv3.StartRequest{ID: create.ID})
	must(t, err)
	f, err := os.OpenFile(in, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("a line\n")
	must(t, err)
	must(t, f.Close())
	w, err := s.Wait(ctx, &taskv3.WaitRequest{ID: create.ID})
	must(t, err)
	if got := <-text; !strings.Contains(got, "got a line\r\n") || w.ExitStatus != 3 {
		t.Errorf("output %q, exit status %d", got, w.ExitStatus)
	}
	_, err = s.Delete(ctx, &taskv3.DeleteRequest{ID: create.ID})
	must(t, err)
	wantEvents(t, events, "create", "start", "exit", "delete")
}

// That the kernel killed for want of memory is told before the exit.
func TestOutOfMemory(t *testing.T) {
	requireV1(t)
	limit := int64(32 << 20)
	spec := specOf(newID(), shell("dd if=/dev/zero of=/dev/null bs=200M count=1; exec dd if=/dev/zero of=/dev/null bs=200M")...)
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	s, events, create := service(t, spec)
	ctx := t.Context()
	_, err := s.Create(ctx, create)
	must(t, err)
	_, err = s.Start(ctx, &taskv3.StartRequest{ID: create.ID})
	must(t, err)
	w, err := s.Wait(ctx, &taskv3.WaitRequest{ID: create.ID})
	must(t, err)
	if w.ExitStatus != 137 {
		t.Errorf("exit status %d", w.ExitStatus)
	}
	if _, err := s.Stats(ctx, &taskv3.StatsRequest{ID: create.ID}); err != nil {
		t.Errorf("last statistics: %v", err)
	}
	_, err = s.Delete(ctx, &taskv3.DeleteRequest{ID: create.ID})
	must(t, err)
	all := events.all()
	if oom := slices.Index(all, "oom"); oom < 0 || oom > slices.Index(all, "exit") {
		t.Errorf("events %q", all)
	}
}

// Processes that outlive an init that shares its PID namespace end before its
// exit is told.
func TestSharedPIDNamespaceExit(t *testing.T) {
	spec := sharedPIDs(specOf(newID(), shell("sleep 1000 & sleep 1000 & sleep 0.2; exit 4")...))
	s, events, create := service(t, spec)
	ctx := t.Context()
	_, err := s.Create(ctx, create)
	must(t, err)
	_, err = s.Start(ctx, &taskv3.StartRequest{ID: create.ID})
	must(t, err)
	p, err := json.Marshal(processSpec("sleep", "1000"))
	must(t, err)
	_, err = s.Exec(ctx, &taskv3.ExecProcessRequest{ID: create.ID, ExecID: "e", Spec: &anypb.Any{Value: p}})
	must(t, err)
	_, err = s.Start(ctx, &taskv3.StartRequest{ID: create.ID, ExecID: "e"})
	must(t, err)
	w, err := s.Wait(ctx, &taskv3.WaitRequest{ID: create.ID})
	must(t, err)
	if w.ExitStatus != 4 {
		t.Errorf("exit status %d", w.ExitStatus)
	}
	_, err = s.Delete(ctx, &taskv3.DeleteRequest{ID: create.ID})
	must(t, err)
	wantEvents(t, events, "create", "start", "exec-added", "exec-started", "exit", "exit", "delete")
}

// Kills that begin before the container is there are refused, or hit it as soon
// as it can be found: then it is killed and can be deleted, and its events are
// in order.
func TestKillDuringCreate(t *testing.T) {
	const killers, rounds = 8, 5
	for range rounds {
		s, events, create := service(t, specOf(newID(), "sleep", "1000"))
		ctx := t.Context()
		var killing sync.WaitGroup
		for range killers {
			killing.Go(func() {
				kill := func() bool {
					_, err := s.Kill(ctx, &taskv3.KillRequest{ID: create.ID, Signal: uint32(unix.SIGKILL)})
					return err == nil || strings.Contains(err.Error(), "process already finished")
				}
				eventually(t, "the container is there to be killed", kill)
			})
		}
		_, err := s.Create(ctx, create)
		must(t, err)
		if _, err := s.Start(ctx, &taskv3.StartRequest{ID: create.ID}); err != nil && !strings.HasPrefix(err.Error(), "OCI runtime start failed: ") && !errdefs.IsFailedPrecondition(err) {
			t.Error(err)
		}
		killing.Wait()
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		w, err := s.Wait(bounded, &taskv3.WaitRequest{ID: create.ID})
		cancel()
		must(t, err)
		if w.ExitStatus != 137 {
			t.Errorf("exit status %d", w.ExitStatus)
		}
		_, err = s.Delete(ctx, &taskv3.DeleteRequest{ID: create.ID})
		must(t, err)
		if all := events.all(); slices.Contains(all, "start") {
			wantEvents(t, events, "create", "start", "exit", "delete")
		} else {
			wantEvents(t, events, "create", "exit", "delete")
		}
	}
}
