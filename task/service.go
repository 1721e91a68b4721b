package task

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"containerd-shim-numa-v1/rootfs"
	"containerd-shim-numa-v1/task/placement"
)

// Publisher takes events for containerd. Publish does not block and keeps
// the order of its calls.
type Publisher interface {
	Publish(topic string, event proto.Message)
}

// Config is what the shim gives a Service.
type Config struct {
	Namespace string
	// Node is the configuration of this machine (config.toml).
	Node   Settings
	Engine Engine
	// External makes an engine on the OCI runtime of which it gets the path.
	// It does not block.
	External  func(binary string) (Engine, error)
	Publisher Publisher
	// Wake has a value when CPUs that other containers of the host own have
	// changed. Without it the service's containers keep those they have.
	Wake <-chan os.Signal
	// Shutdown ends the shim; it returns at once.
	Shutdown func()
}

// Service answers the Task API for all containers of a shim.
type Service struct {
	Config
	userns   rootfs.UserNSCache
	workshop rootfs.Workshop
	bases    rootfs.BaseCache

	placer    *placement.Placer
	reapplier *reapplier
	cookie    sync.Once // has been asked for

	mu         sync.Mutex            // guards what follows
	containers map[string]*Container // nil while being created
	ended      tombstones
	closed     bool // no container is created any more
	// chosen is the engine of all containers, nil before the first, and
	// chosenBinary its OCI runtime.
	chosen       Engine
	chosenBinary string
}

// NewService returns a Service without containers.
func NewService(c Config) *Service {
	s := &Service{Config: c, containers: map[string]*Container{}, reapplier: newReapplier()}
	s.placer = placement.New(c.Node.Placement, s.reapplier.changed)
	if c.Wake != nil {
		s.reapplier.run(c.Wake, s.reapplyAll, s.placer.Settle)
	}
	return s
}

// Close refuses further containers and lets go of what outlives single ones.
func (s *Service) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return errors.Join(s.reapplier.close(ctx), s.userns.Close(), s.workshop.Close(), s.bases.Close(), s.closeEngine())
}

// Idle tells whether the service has no container and makes none.
func (s *Service) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.containers) == 0
}

// Running tells whether the end of the shim would cut something off: a
// container is being made or deleted, a process of one has not exited, or its
// output has not ended yet.
func (s *Service) Running() bool {
	s.mu.Lock()
	containers := slices.Collect(maps.Values(s.containers))
	s.mu.Unlock()
	return slices.ContainsFunc(containers, func(c *Container) bool { return c == nil || c.running() })
}

func (c *Container) running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deleting != nil || c.init.running() {
		return true
	}
	for _, p := range c.execs {
		if p.running() {
			return true
		}
	}
	return false
}

// The names under which containerd knows the Task API: the third version
// from 2.0 on, the second before. Their messages are equal on the wire.
const (
	taskV2 = "containerd.task.v2.Task"
	taskV3 = "containerd.task.v3.Task"
)

// Register offers the service on srv under both versions of the API.
func (s *Service) Register(srv *ttrpc.Server) {
	methods := map[string]ttrpc.Method{
		"Create":     method("Create", s.Create),
		"Start":      method("Start", s.Start),
		"Delete":     method("Delete", s.Delete),
		"Exec":       method("Exec", s.Exec),
		"ResizePty":  method("ResizePty", s.ResizePty),
		"State":      method("State", s.State),
		"Pause":      method("Pause", s.Pause),
		"Resume":     method("Resume", s.Resume),
		"Kill":       method("Kill", s.Kill),
		"Pids":       method("Pids", s.Pids),
		"CloseIO":    method("CloseIO", s.CloseIO),
		"Checkpoint": method("Checkpoint", s.Checkpoint),
		"Update":     method("Update", s.Update),
		"Wait":       method("Wait", s.Wait),
		"Stats":      method("Stats", s.Stats),
		"Connect":    method("Connect", s.Connect),
		"Shutdown":   method("Shutdown", s.ShutdownTask),
	}
	srv.RegisterService(taskV3, &ttrpc.ServiceDesc{Methods: methods})
	v2 := maps.Clone(methods)
	v2["Pids"] = method("Pids", s.pidsV2)
	srv.RegisterService(taskV2, &ttrpc.ServiceDesc{Methods: v2})
}

// method is the edge of the service: it reads a request and turns the error
// of the answer into its form on the wire, for every RPC alike.
func method[Req any, Resp proto.Message](name string, handle func(context.Context, *Req) (Resp, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		req := new(Req)
		if err := unmarshal(req); err != nil {
			return nil, err
		}
		began := time.Now()
		resp, err := handle(ctx, req)
		if entry := log.G(ctx); entry.Logger.IsLevelEnabled(log.DebugLevel) {
			if err != nil {
				entry = entry.WithError(err)
			}
			entry.WithFields(log.Fields{"rpc": name, "took": time.Since(began)}).Debug("answered")
		}
		if err != nil {
			return nil, errgrpc.ToGRPC(told{err})
		}
		return resp, nil
	}
}

// told is an error as it is told to clients: its text and its kind. Of an
// error that wraps several, errgrpc would send all but the first beside its
// text, and a client would append their texts once more, a line for each.
type told struct{ error }

func (t told) Unwrap() error { return errdefs.Resolve(t.error) }

var _ taskv3.TTRPCTaskService = taskService{}

// taskService has the compiler compare the handlers with the API.
type taskService struct{ *Service }

func (t taskService) Shutdown(ctx context.Context, r *taskv3.ShutdownRequest) (*emptypb.Empty, error) {
	return t.ShutdownTask(ctx, r)
}

// container finds a container that has been created.
func (s *Service) container(id string) (*Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %q: not created: %w", id, errdefs.ErrNotFound)
}

// reserve takes id for a container to be created.
func (s *Service) reserve(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("container %q: the shim is ending: %w", id, errdefs.ErrUnavailable)
	}
	if _, ok := s.containers[id]; ok {
		return fmt.Errorf("container %q: %w", id, errdefs.ErrAlreadyExists)
	}
	s.containers[id] = nil
	return nil
}

// settle ends a reservation: with c it can be found from now on, with nil the
// id is free again.
func (s *Service) settle(id string, c *Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil {
		delete(s.containers, id)
		return
	}
	s.ended.forget(id)
	s.containers[id] = c
}

// retire forgets a deleted container but for how it ended.
func (s *Service) retire(c *Container, how *taskv3.DeleteResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, c.id)
	s.ended.remember(c.id, how)
}

// Connect tells the shim's pid and the container's. It succeeds also for a
// container that there is not (task pid 0): containerd asks it of every shim
// it finds when it starts.
func (s *Service) Connect(_ context.Context, r *taskv3.ConnectRequest) (*taskv3.ConnectResponse, error) {
	resp := &taskv3.ConnectResponse{ShimPid: uint32(os.Getpid())}
	if c, err := s.container(r.ID); err == nil {
		c.mu.Lock()
		resp.TaskPid = c.init.pid()
		c.mu.Unlock()
	}
	return resp, nil
}

// ShutdownTask ends the shim if it has no container left. containerd asks it
// after each Delete.
func (s *Service) ShutdownTask(ctx context.Context, _ *taskv3.ShutdownRequest) (*emptypb.Empty, error) {
	// At once, so that no container is created in a shim that ends.
	s.mu.Lock()
	idle := len(s.containers) == 0
	s.closed = s.closed || idle
	s.mu.Unlock()
	if idle {
		log.G(ctx).Debug("shutdown: no container left")
		s.Shutdown()
	}
	return &emptypb.Empty{}, nil
}
