package rig

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
)

// Event is one task event: what happened to which process of which container.
type Event struct {
	Topic     string // "/tasks/exit"
	Container string
	Process   string // the exec's id; "" for init and for events of the container
	Pid       uint32
	Status    uint32 // exit status, of exits
	ExitedAt  time.Time
	At        time.Time // when the shim made it
	// Checkpoint is the directory of the images, of checkpoints.
	Checkpoint string
}

func (e Event) String() string {
	name := e.Container
	if e.Process != "" {
		name += "/" + e.Process
	}
	return fmt.Sprintf("%s %s pid %d status %d", strings.TrimPrefix(e.Topic, "/tasks/"), name, e.Pid, e.Status)
}

// Recorder keeps every task event that containerd published. It subscribes
// again when containerd went away; what was published between is not seen.
type Recorder struct {
	mu     sync.Mutex
	events []Event

	cancel context.CancelFunc
	done   chan struct{}
}

// Record subscribes to the daemon's task events until Close. It returns once
// events published from now on are recorded.
func (d *Daemon) Record(ctx context.Context) (*Recorder, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &Recorder{cancel: cancel, done: make(chan struct{})}
	subscribe := func() (<-chan *events.Envelope, <-chan error) {
		return d.client.Subscribe(ctx, `topic~="^/tasks/|^/numa-rig/"`)
	}
	envelopes, errs := subscribe()
	go r.run(ctx, envelopes, errs, subscribe)
	if err := d.awaitSubscribed(ctx, r); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// awaitSubscribed publishes marks until one arrives: Subscribe answers before
// containerd has registered the subscription.
func (d *Daemon) awaitSubscribed(ctx context.Context, r *Recorder) error {
	const mark = "numa-rig-mark"
	var err error
	if Eventually(startBound, func() bool {
		err = d.client.EventService().Publish(ctx, "/numa-rig/mark", &eventsapi.TaskStart{ContainerID: mark})
		return r.forget(mark) > 0
	}) {
		return nil
	}
	return fmt.Errorf("no event arrived from containerd: %w", err)
}

// forget removes a container's events and says how many there were.
func (r *Recorder) forget(container string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := r.events[:0]
	for _, e := range r.events {
		if e.Container != container {
			kept = append(kept, e)
		}
	}
	n := len(r.events) - len(kept)
	r.events = kept
	return n
}

func (r *Recorder) run(ctx context.Context, envelopes <-chan *events.Envelope, errs <-chan error, subscribe func() (<-chan *events.Envelope, <-chan error)) {
	defer close(r.done)
	for {
		select {
		case env, ok := <-envelopes:
			if !ok {
				envelopes = nil
				continue
			}
			if e, ok := decode(env); ok {
				r.mu.Lock()
				r.events = append(r.events, e)
				r.mu.Unlock()
			}
		case <-errs:
			select {
			case <-ctx.Done():
				return
			case <-time.After(pollInterval):
				envelopes, errs = subscribe()
			}
		case <-ctx.Done():
			return
		}
	}
}

// Close ends the recording.
func (r *Recorder) Close() {
	r.cancel()
	<-r.done
}

// Events returns a container's events in the order containerd published them.
func (r *Recorder) Events(container string) []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Event
	for _, e := range r.events {
		if e.Container == container {
			list = append(list, e)
		}
	}
	return list
}

// Await waits, bounded, for an event and returns the first such.
func (r *Recorder) Await(bound time.Duration, topic, container, process string) (Event, error) {
	var found Event
	if Eventually(bound, func() bool {
		for _, e := range r.Events(container) {
			if e.Topic == topic && e.Process == process {
				found = e
				return true
			}
		}
		return false
	}) {
		return found, nil
	}
	return found, fmt.Errorf("no %s of %s/%s within %s; have %v", topic, container, process, bound, r.Events(container))
}

// decode turns an envelope into an Event; false for events of other kinds.
func decode(env *events.Envelope) (Event, bool) {
	v, err := typeurl.UnmarshalAny(env.Event)
	if err != nil {
		return Event{}, false
	}
	e := Event{Topic: env.Topic, At: env.Timestamp}
	switch v := v.(type) {
	case *eventsapi.TaskCreate:
		e.Container, e.Pid = v.ContainerID, v.Pid
	case *eventsapi.TaskStart:
		e.Container, e.Pid = v.ContainerID, v.Pid
	case *eventsapi.TaskExecAdded:
		e.Container, e.Process = v.ContainerID, v.ExecID
	case *eventsapi.TaskExecStarted:
		e.Container, e.Process, e.Pid = v.ContainerID, v.ExecID, v.Pid
	case *eventsapi.TaskExit:
		e.Container, e.Pid, e.Status, e.ExitedAt = v.ContainerID, v.Pid, v.ExitStatus, v.ExitedAt.AsTime()
		if v.ID != v.ContainerID {
			e.Process = v.ID
		}
	case *eventsapi.TaskDelete:
		e.Container, e.Pid, e.Status = v.ContainerID, v.Pid, v.ExitStatus
		if v.ID != "" && v.ID != v.ContainerID {
			e.Process = v.ID
		}
	case *eventsapi.TaskOOM:
		e.Container = v.ContainerID
	case *eventsapi.TaskPaused:
		e.Container = v.ContainerID
	case *eventsapi.TaskResumed:
		e.Container = v.ContainerID
	case *eventsapi.TaskCheckpointed:
		e.Container, e.Checkpoint = v.ContainerID, v.Checkpoint
	default:
		return Event{}, false
	}
	return e, true
}
