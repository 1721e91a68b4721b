package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	events "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// queueLimit is how many events wait for containerd, about 500 kB.
	// Upstream's publisher has as many.
	queueLimit = 2048

	// exitTopic is of the events that are kept when the queue is full.
	exitTopic = "/tasks/exit"

	namespaceHeader = "containerd-namespace-ttrpc"

	dialTimeout = 5 * time.Second
	retryMin    = 50 * time.Millisecond
	retryMax    = 2 * time.Second

	// slowAnswer is when a missing answer is logged, and lostAnswer when the
	// connection is given up for one.
	slowAnswer = 5 * time.Second
	lostAnswer = time.Minute
)

// Publisher takes events to containerd in the order in which they were
// published, and keeps them while containerd is away.
//
// The first event in the queue is retried until containerd has taken it; no
// other overtakes it. An event that containerd refuses as invalid is dropped.
// An event may arrive twice if the connection broke before its answer. While
// the connection stands, nothing is sent again for a minute: a containerd
// that is merely stopped finds every copy on its socket when it goes on.
//
// A full queue drops the oldest event that is not an exit, and only if there
// is none, the oldest exit: what a containerd that comes back cannot find out
// by asking is that something ended. Events that are left keep their order.
type Publisher struct {
	address   string
	namespace string
	logger    *log.Entry

	wake  chan struct{} // has an element if the queue may have one
	ended chan struct{} // closed when the goroutine has ended
	quit  context.CancelFunc

	mu      sync.Mutex // guards what follows; held for no call but append and delete
	queue   []*types.Envelope
	sending bool // queue[0] is on its way
	dropped uint64
	full    bool            // since the queue was last empty
	drained []chan struct{} // closed when the queue is empty
}

// NewPublisher returns a publisher to containerd's ttrpc service at an
// address, a path with or without "unix://". It connects with the first
// event. The caller closes it.
func NewPublisher(ctx context.Context, address, namespace string) *Publisher {
	ctx, quit := context.WithCancel(ctx)
	p := &Publisher{
		address:   strings.TrimPrefix(address, unixScheme),
		namespace: namespace,
		logger:    log.G(ctx),
		wake:      make(chan struct{}, 1),
		ended:     make(chan struct{}),
		quit:      quit,
	}
	go p.run(ctx)
	return p
}

// Publish queues an event. It does not block. The event may be changed
// afterwards.
func (p *Publisher) Publish(topic string, event proto.Message) {
	value, err := typeurl.MarshalAnyToProto(event)
	if err != nil {
		p.logger.WithError(err).WithField("topic", topic).Error("encode event")
		return
	}
	p.push(&types.Envelope{
		Timestamp: timestamppb.Now(),
		Namespace: p.namespace,
		Topic:     topic,
		Event:     value,
	})
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Publisher) push(e *types.Envelope) {
	p.mu.Lock()
	p.queue = append(p.queue, e)
	filled := false
	if len(p.queue) > queueLimit {
		filled = !p.full
		p.full = true
		p.dropped++
		p.evict()
	}
	p.mu.Unlock()
	if filled {
		p.logger.WithField("limit", queueLimit).Error("event queue is full, events are dropped")
	}
}

// evict drops the least valuable event, but not one on its way. It needs mu.
func (p *Publisher) evict() {
	first := 0
	if p.sending {
		first = 1
	}
	victim := slices.IndexFunc(p.queue[first:], func(e *types.Envelope) bool { return e.Topic != exitTopic })
	victim = first + max(victim, 0)
	p.queue = slices.Delete(p.queue, victim, victim+1)
}

// Dropped returns how many events were dropped because the queue was full.
func (p *Publisher) Dropped() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

// Drain waits until containerd has taken every event, or ctx ends; then the
// error tells how many are left.
func (p *Publisher) Drain(ctx context.Context) error {
	p.mu.Lock()
	if len(p.queue) == 0 {
		p.mu.Unlock()
		return nil
	}
	drained := make(chan struct{})
	p.drained = append(p.drained, drained)
	p.mu.Unlock()

	err := errors.New("the publisher is closed")
	select {
	case <-drained:
		return nil
	case <-p.ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Errorf("deliver %d events to %s: %w", len(p.queue), p.address, err)
}

// Close ends the publisher. Events in the queue are lost.
func (p *Publisher) Close() {
	p.quit()
	<-p.ended
}

// run owns the connection and delivers the queue.
func (p *Publisher) run(ctx context.Context) {
	defer close(p.ended)
	var c courier
	defer c.hangUp()
	retry := retryMin
	for {
		e := p.head()
		if e == nil {
			select {
			case <-p.wake:
			case <-ctx.Done():
				return
			}
			continue
		}
		err := c.forward(ctx, p, e)
		if err == nil || refused(err) {
			p.pop(e, err)
			retry = retryMin
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if retry == retryMin {
			p.logger.WithError(err).WithField("topic", e.Topic).Warn("forward event, will be retried")
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return
		}
		retry = min(2*retry, retryMax)
	}
}

// head returns the event to send now, nil if there is none.
func (p *Publisher) head() *types.Envelope {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return nil
	}
	p.sending = true
	return p.queue[0]
}

// pop removes the event that was sent, or refused with an error.
func (p *Publisher) pop(e *types.Envelope, refusal error) {
	p.mu.Lock()
	p.sending = false
	p.queue[0] = nil
	p.queue = p.queue[1:]
	recovered := false
	if len(p.queue) == 0 {
		p.queue = nil // releases the array that a long outage grew
		recovered, p.full = p.full, false
		for _, drained := range p.drained {
			close(drained)
		}
		p.drained = nil
	}
	dropped := p.dropped
	p.mu.Unlock()
	if refusal != nil {
		p.logger.WithError(refusal).WithField("topic", e.Topic).Error("containerd refused an event, it is dropped")
	}
	if recovered {
		p.logger.WithField("dropped", dropped).Warn("event queue is empty again")
	}
}

// refused tells that containerd would never take the event.
func refused(err error) bool {
	native := errgrpc.ToNative(err)
	return errdefs.IsInvalidArgument(native) || errdefs.IsResourceExhausted(native) // the latter: longer than a message may be
}

// courier is the connection to containerd. Only the publisher's goroutine
// uses it.
type courier struct {
	client *ttrpc.Client
}

// forward sends one event and waits for the answer. A connection that turns
// out to be closed, as after containerd's restart, is replaced at once.
func (c *courier) forward(ctx context.Context, p *Publisher, e *types.Envelope) error {
	reused := c.client != nil
	err := c.try(ctx, p, e)
	if reused && errors.Is(err, ttrpc.ErrClosed) {
		err = c.try(ctx, p, e)
	}
	return err
}

func (c *courier) try(ctx context.Context, p *Publisher, e *types.Envelope) error {
	if c.client == nil {
		dialer := net.Dialer{Timeout: dialTimeout}
		conn, err := dialer.DialContext(ctx, "unix", p.address)
		if err != nil {
			return fmt.Errorf("connect to containerd for events: %w", err)
		}
		c.client = ttrpc.NewClient(conn)
	}
	slow := time.AfterFunc(slowAnswer, func() {
		p.logger.WithField("topic", e.Topic).Warn("containerd does not answer to an event")
	})
	defer slow.Stop()
	// Limited by a timer rather than a deadline: ttrpc would send a deadline
	// along, for a stopped containerd to find that it has passed.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lost := time.AfterFunc(lostAnswer, cancel)
	defer lost.Stop()

	header := ttrpc.MD{}
	header.Set(namespaceHeader, p.namespace)
	_, err := events.NewTTRPCEventsClient(c.client).Forward(ttrpc.WithMetadata(ctx, header), &events.ForwardRequest{Envelope: e})
	if err != nil && !refused(err) {
		c.hangUp()
	}
	return err
}

func (c *courier) hangUp() {
	if c.client != nil {
		c.client.Close()
		c.client = nil
	}
}
