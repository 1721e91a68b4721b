package shim

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

func testShim() Runtime {
	unattended, err := time.ParseDuration(os.Getenv(envUnattended))
	if err != nil || unattended == 0 {
		unattended = time.Minute
	}
	memory, err := time.ParseDuration(os.Getenv(envTermMemory))
	if err != nil || memory == 0 {
		memory = termMemory
	}
	return Runtime{
		Name: testRuntime, Version: "1.2.3", Revision: "abc", VersionText: "  Engine:     none",
		Info: func(_ context.Context, options *anypb.Any) (*types.RuntimeInfo, error) {
			return &types.RuntimeInfo{Name: testRuntime, Options: options}, nil
		},
		Serve: func(_ context.Context, d Daemon) (Service, error) {
			if _, err := os.Stat("refuse"); err == nil {
				return nil, fmt.Errorf("refused")
			}
			return &testTask{daemon: d}, nil
		},
		Delete: testDelete,
		tuning: &tuning{socketDir: os.Getenv(envSockets), unattended: unattended, quiet: testQuiet, termMemory: memory},
	}
}

// testDelete notes the id. A file "undead" in the bundle makes it fail.
func testDelete(_ context.Context, t Target) (Exit, error) {
	if _, err := os.Stat(filepath.Join(t.Bundle, "undead")); err == nil {
		return Exit{}, fmt.Errorf("undead")
	}
	f, err := os.OpenFile(os.Getenv(envDeleted), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return Exit{}, err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, t.ID)
	return Exit{Pid: 42, Status: 137, At: time.Unix(1700000000, 0)}, err
}

// testTask is a service that holds a container between Hold and Release, which
// runs until Exited.
type testTask struct {
	daemon        Daemon
	held, running atomic.Bool
}

func (s *testTask) Idle() bool { return !s.held.Load() }

func (s *testTask) Running() bool { return s.running.Load() }

func (s *testTask) Close(context.Context) error { return nil }

func (s *testTask) Register(server *ttrpc.Server) {
	method := func(do func()) ttrpc.Method {
		return func(_ context.Context, unmarshal func(any) error) (any, error) {
			if err := unmarshal(&emptypb.Empty{}); err != nil {
				return nil, err
			}
			do()
			return &emptypb.Empty{}, nil
		}
	}
	server.RegisterService(testService, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Hold":        method(func() { s.held.Store(true); s.running.Store(true) }),
		"Exited":      method(func() { s.running.Store(false) }),
		"Release":     method(func() { s.running.Store(false); s.held.Store(false) }),
		"ReleaseSoon": method(func() { time.AfterFunc(releaseDelay, func() { s.held.Store(false) }) }),
		"Shutdown":    method(func() { s.daemon.Shutdown(); s.daemon.Shutdown(); time.Sleep(answerDelay) }),
		"Exit": method(func() {
			s.daemon.Publisher.Publish(exitTopic, &eventtypes.TaskExit{ContainerID: s.daemon.ID})
			s.daemon.Shutdown()
		}),
		"Collect": method(runtime.GC),
		// Memory tells how often memory was collected, and when it next will be.
		"Memory": func(_ context.Context, unmarshal func(any) error) (any, error) {
			var collected debug.GCStats
			debug.ReadGCStats(&collected)
			percent := []metrics.Sample{{Name: "/gc/gogc:percent"}}
			metrics.Read(percent)
			return &anypb.Any{TypeUrl: fmt.Sprint(collected.NumGC, " ", percent[0].Value.Uint64())}, unmarshal(&emptypb.Empty{})
		},
		"Describe": func(_ context.Context, unmarshal func(any) error) (any, error) {
			d := s.daemon
			return &anypb.Any{TypeUrl: strings.Join([]string{
				d.Namespace, d.ID, d.Group, d.Bundle, d.Address, strconv.FormatBool(d.Debug)}, " ")}, unmarshal(&emptypb.Empty{})
		},
	}})
}

func dialAndCall(path string) int {
	conn, err := net.Dial("unix", path)
	if err != nil {
		fmt.Println("dial:", err)
		return 2
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	if err := client.Call(context.Background(), testService, "Hold", &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		fmt.Println("call:", err)
		return 1
	}
	return 0
}
