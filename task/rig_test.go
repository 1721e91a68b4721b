package task

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/containerd/containerd/api/events"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	taskapi "github.com/containerd/containerd/api/types/task"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"containerd-shim-numa-v1/task/placement"
)

// rig is a service on a fake engine, with the events it has published.
type rig struct {
	*Service
	t      testing.TB
	engine *fakeEngine

	mu     sync.Mutex
	events []string
	down   int // calls of Shutdown
}

// newRig is a service that leaves the containers where they are: the ledger is
// the machine's.
func newRig(t testing.TB) *rig {
	return newRigWith(t, Config{Node: Settings{Placement: placement.Settings{Policy: placement.None}}})
}

// newRigWith is a service with what c says of node and wakes.
func newRigWith(t testing.TB, c Config) *rig {
	r := &rig{t: t, engine: newFakeEngine()}
	r.Service = NewService(Config{Namespace: "test", Node: c.Node, Wake: c.Wake, Engine: r.engine, Publisher: r, Shutdown: func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.down++
	}})
	return r
}

// Publish writes an event down as "<what> <container> [<exec>]".
func (r *rig) Publish(topic string, event proto.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, eventLine(topic, event))
}

func eventLine(topic string, event proto.Message) string {
	switch e := event.(type) {
	case *events.TaskExit:
		if e.ID == e.ContainerID {
			return describe("exit", e.ContainerID)
		}
		return describe("exit", e.ContainerID, e.ID)
	case *events.TaskExecAdded:
		return describe("added", e.ContainerID, e.ExecID)
	case *events.TaskExecStarted:
		return describe("start", e.ContainerID, e.ExecID)
	case interface{ GetContainerID() string }:
		return describe(map[string]string{
			topicCreate: "create", topicStart: "start", topicOOM: "oom", topicDelete: "delete",
			topicPaused: "paused", topicResumed: "resumed", topicCheckpointed: "checkpointed",
		}[topic], e.GetContainerID())
	}
	return fmt.Sprintf("unknown %s %T", topic, event)
}

func (r *rig) log() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.events...)
}

// createRequest is for a container with a PID namespace of its own and no
// streams.
func createRequest(t testing.TB, id string) *taskv3.CreateTaskRequest {
	return &taskv3.CreateTaskRequest{ID: id, Bundle: bundle(t, ownPIDs)}
}

func (r *rig) create(id string) *fakeInstance {
	r.t.Helper()
	return r.createWith(id, ownPIDs)
}

func (r *rig) createWith(id, spec string) *fakeInstance {
	r.t.Helper()
	_, err := r.Create(context.Background(), &taskv3.CreateTaskRequest{ID: id, Bundle: bundle(r.t, spec)})
	must(r.t, err)
	return r.engine.last()
}

// createFrom makes a container that Start restores from images.
func (r *rig) createFrom(id, images string) *fakeInstance {
	r.t.Helper()
	_, err := r.Create(context.Background(), &taskv3.CreateTaskRequest{ID: id, Bundle: bundle(r.t, ownPIDs), Checkpoint: images})
	must(r.t, err)
	return r.engine.last()
}

func (r *rig) start(id, execID string) {
	r.t.Helper()
	_, err := r.Start(context.Background(), &taskv3.StartRequest{ID: id, ExecID: execID})
	must(r.t, err)
}

func (r *rig) run(id string) *fakeInstance {
	r.t.Helper()
	i := r.create(id)
	r.start(id, "")
	return i
}

func execRequest(id, execID string) *taskv3.ExecProcessRequest {
	return &taskv3.ExecProcessRequest{ID: id, ExecID: execID, Spec: &anypb.Any{Value: []byte(`{"args":["x"],"cwd":"/"}`)}}
}

func (r *rig) addExec(id, execID string) {
	r.t.Helper()
	_, err := r.Exec(context.Background(), execRequest(id, execID))
	must(r.t, err)
}

func (r *rig) kill(id, execID string, sig uint32) {
	r.t.Helper()
	_, err := r.Kill(context.Background(), &taskv3.KillRequest{ID: id, ExecID: execID, Signal: sig})
	must(r.t, err)
}

func (r *rig) delete(id, execID string) *taskv3.DeleteResponse {
	r.t.Helper()
	how, err := r.Delete(context.Background(), &taskv3.DeleteRequest{ID: id, ExecID: execID})
	must(r.t, err)
	return how
}

// wait waits until a process's exit has been published.
func (r *rig) wait(id, execID string) *taskv3.WaitResponse {
	r.t.Helper()
	w, err := r.Wait(context.Background(), &taskv3.WaitRequest{ID: id, ExecID: execID})
	must(r.t, err)
	return w
}

func (r *rig) status(id, execID string) taskapi.Status {
	r.t.Helper()
	s, err := r.State(context.Background(), &taskv3.StateRequest{ID: id, ExecID: execID})
	must(r.t, err)
	return s.Status
}

// checkOrder checks what package task promises of its events, for containers
// that have all been deleted. unstarted says that inits may have an exit
// without a start: those that were deleted as created.
func checkOrder(t testing.TB, log []string) {
	t.Helper()
	type life struct{ created, started, exited, deleted bool }
	lives := map[string]*life{}
	open := map[string]map[string]bool{} // started and not exited execs by container
	for n, line := range log {
		fail := func(why string) { t.Errorf("event %d, %q: %s\n%q", n, line, why, log) }
		var what, id, exec string
		_, _ = fmt.Sscan(line, &what, &id, &exec)
		key := id
		if exec != "" {
			key += " " + exec
		}
		l, c := lives[key], lives[id]
		switch {
		case what == "create":
			if l != nil && !l.deleted {
				fail("created twice")
			}
			lives[key], open[id] = &life{created: true}, map[string]bool{}
			continue
		case what == "added":
			if c == nil || c.exited {
				fail("exec added after init's exit")
			}
			lives[key] = &life{created: true}
			continue
		case l == nil || l.deleted:
			fail("of a process that there is not")
			continue
		}
		switch what {
		case "start":
			if l.started || l.exited {
				fail("second start, or after the exit")
			}
			if exec != "" && c.exited {
				fail("exec started after init's exit")
			}
			l.started = true
			if exec != "" {
				open[id][exec] = true
			}
		case "exit":
			if l.exited || exec != "" && !l.started {
				fail("second exit, or exit without start")
			}
			if exec == "" && len(open[id]) > 0 {
				fail("init's exit is not the last")
			}
			l.exited = true
			delete(open[id], exec)
		case "oom", "paused", "resumed", "checkpointed":
			if l.exited {
				fail("after the exit")
			}
		case "delete":
			if !l.exited {
				fail("deleted before the exit")
			}
			l.deleted = true
		default:
			fail("unknown event")
		}
	}
	for key, l := range lives {
		if l.started && !l.exited {
			t.Errorf("%s: start without exit: %q", key, log)
		}
	}
}
