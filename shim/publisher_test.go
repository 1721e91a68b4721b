package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	events "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// daemonEvents is containerd's event service, which may be killed, started
// again, and made to hang.
type daemonEvents struct {
	testing.TB
	path string

	mu     sync.Mutex
	ids    []string
	hang   chan struct{} // while not nil, calls wait for its close
	refuse string        // id of an event that is invalid
	server *ttrpc.Server
	served chan struct{}
}

func newDaemonEvents(t testing.TB) *daemonEvents {
	dir, err := os.MkdirTemp("", "shim-")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemonEvents{TB: t, path: filepath.Join(dir, "containerd.sock.ttrpc")}
	t.Cleanup(func() {
		d.stop()
		os.RemoveAll(dir)
	})
	return d
}

func (d *daemonEvents) Forward(ctx context.Context, req *events.ForwardRequest) (*emptypb.Empty, error) {
	e := req.Envelope
	if ns, _ := ttrpc.GetMetadataValue(ctx, "containerd-namespace-ttrpc"); ns != testNamespace || e.Namespace != ns {
		d.Errorf("namespace %q in the header, %q in the envelope", ns, e.Namespace)
	}
	if e.Timestamp == nil || e.Topic == "" {
		d.Errorf("envelope %v", e)
	}
	value, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		d.Error(err)
		return nil, err
	}
	id := value.(interface{ GetContainerID() string }).GetContainerID()

	d.mu.Lock()
	hang, refuse := d.hang, d.refuse
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if id == refuse {
		return nil, errgrpc.ToGRPC(fmt.Errorf("topic: %w", errdefs.ErrInvalidArgument))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ids = append(d.ids, id)
	return &emptypb.Empty{}, nil
}

func (d *daemonEvents) start() {
	d.Helper()
	os.Remove(d.path)
	l, err := net.Listen("unix", d.path)
	if err != nil {
		d.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		d.Fatal(err)
	}
	events.RegisterTTRPCEventsService(server, d)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(context.Background(), l)
	}()
	d.server, d.served = server, served
}

// stop ends the service as a kill does: calls get no answer.
func (d *daemonEvents) stop() {
	if d.server == nil {
		return
	}
	d.server.Close()
	<-d.served
	d.server = nil
}

func (d *daemonEvents) setHang(h chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hang = h
}

func (d *daemonEvents) received() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.ids)
}

func newTestPublisher(t testing.TB, address string) *Publisher {
	p := NewPublisher(t.Context(), address, testNamespace)
	t.Cleanup(p.Close)
	return p
}

func publishExit(p *Publisher, id string) {
	p.Publish(exitTopic, &eventtypes.TaskExit{ContainerID: id})
}

func drain(t testing.TB, p *Publisher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.Drain(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestPublisherKeepsOrder(t *testing.T) {
	d := newDaemonEvents(t)
	p := newTestPublisher(t, "unix://"+d.path)
	var want []string
	publish := func(n int) {
		for range n {
			id := fmt.Sprint("c", len(want))
			want = append(want, id)
			publishExit(p, id)
		}
	}
	publish(10) // before there is a containerd
	d.start()
	publish(10)
	drain(t, p)
	for range 5 {
		publish(20)
		d.stop() // with events under way
		publish(20)
		time.Sleep(30 * time.Millisecond)
		d.start()
		publish(5)
	}
	drain(t, p)
	// A broken connection may cost a repetition, nothing else.
	if got := slices.Compact(d.received()); !slices.Equal(got, want) {
		t.Fatalf("received %v\nwant %v", got, want)
	}
	if p.Dropped() != 0 {
		t.Errorf("%d dropped", p.Dropped())
	}
}

// A containerd that hangs gets one copy, and what follows when it goes on.
func TestPublisherHangingDaemon(t *testing.T) {
	d := newDaemonEvents(t)
	hang := make(chan struct{})
	d.setHang(hang)
	d.start()
	p := newTestPublisher(t, d.path)
	begun := time.Now()
	for _, id := range []string{"a", "b", "c"} {
		publishExit(p, id)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("publishing took %v", took)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := p.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "deliver 3 events") {
		t.Errorf("drain: %v", err)
	}
	d.setHang(nil)
	close(hang)
	drain(t, p)
	if got := d.received(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("received %v", got)
	}
}

// A containerd that hangs and is killed loses nothing.
func TestPublisherKilledWhileHanging(t *testing.T) {
	d := newDaemonEvents(t)
	hang := make(chan struct{})
	defer close(hang)
	d.setHang(hang)
	// Not ttrpc's server: it keeps a connection that a call is under way on.
	l, err := net.Listen("unix", d.path)
	if err != nil {
		t.Fatal(err)
	}
	p := newTestPublisher(t, d.path)
	publishExit(p, "a")
	publishExit(p, "b")
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	l.Close()
	d.setHang(nil)
	d.start()
	drain(t, p)
	if got := d.received(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("received %v", got)
	}
}

func TestPublisherRefusedEvent(t *testing.T) {
	d := newDaemonEvents(t)
	d.refuse = "bad"
	d.start()
	p := newTestPublisher(t, d.path)
	for _, id := range []string{"a", "bad", "b"} {
		publishExit(p, id)
	}
	drain(t, p)
	if got := d.received(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("received %v", got)
	}
}

func TestPublisherFullQueue(t *testing.T) {
	d := newDaemonEvents(t)
	p := newTestPublisher(t, d.path)
	var want []string
	for i := range queueLimit {
		if i%2 == 0 {
			p.Publish("/tasks/start", &eventtypes.TaskStart{ContainerID: fmt.Sprint("start", i)})
			continue
		}
		publishExit(p, fmt.Sprint("exit", i))
		want = append(want, fmt.Sprint("exit", i))
	}
	// Takes the place of all starts, but for the one that may be on its way.
	for i := range queueLimit/2 - 1 {
		publishExit(p, fmt.Sprint("late", i))
		want = append(want, fmt.Sprint("late", i))
	}
	if got := p.Dropped(); got != queueLimit/2-1 {
		t.Errorf("%d dropped", got)
	}
	d.start()
	drain(t, p)
	got := slices.DeleteFunc(d.received(), func(id string) bool { return strings.HasPrefix(id, "start") })
	if starts := len(d.received()) - len(got); starts != 1 || !slices.Equal(got, want) {
		t.Errorf("received %d starts and %d exits %v", starts, len(got), got)
	}
}

func TestEvict(t *testing.T) {
	tests := map[string]struct {
		topics  string // s for start, e for exit
		sending bool
		want    int // index of the victim
	}{
		"oldest that is no exit":       {"eses", false, 1},
		"not the one on its way":       {"sees", true, 3},
		"the new one":                  {"eees", false, 3},
		"oldest exit":                  {"eeee", false, 0},
		"oldest exit not on its way":   {"eeee", true, 1},
		"only the one on its way is s": {"seee", true, 1},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := &Publisher{sending: tc.sending}
			var want []int
			for i, c := range tc.topics {
				topic := exitTopic
				if c == 's' {
					topic = "/tasks/start"
				}
				p.queue = append(p.queue, &types.Envelope{Topic: topic, Timestamp: &timestamppb.Timestamp{Seconds: int64(i)}})
				if i != tc.want {
					want = append(want, i)
				}
			}
			p.evict()
			var got []int
			for _, e := range p.queue {
				got = append(got, int(e.Timestamp.Seconds))
			}
			if !slices.Equal(got, want) {
				t.Errorf("left %v, want %v", got, want)
			}
		})
	}
}

func TestPublisherCloseWhileDaemonIsAway(t *testing.T) {
	p := NewPublisher(t.Context(), "/nonexistent/containerd.sock.ttrpc", testNamespace)
	publishExit(p, "a")
	p.Close()
	if err := p.Drain(context.Background()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("drain: %v", err)
	}
}

func TestTTRPCAddress(t *testing.T) {
	t.Setenv(ttrpcAddressEnv, "")
	if got := ttrpcAddress("/run/containerd/containerd.sock"); got != "/run/containerd/containerd.sock.ttrpc" {
		t.Error(got)
	}
	t.Setenv(ttrpcAddressEnv, "/x.sock")
	if got := ttrpcAddress("/run/containerd/containerd.sock"); got != "/x.sock" {
		t.Error(got)
	}
}
