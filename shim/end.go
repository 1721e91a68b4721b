package shim

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
)

const (
	// The parts of an orderly end. containerd waits 3 s for the Shutdown call,
	// which has returned by then.
	closeBudget = 10 * time.Second // for Service.Close
	drainBudget = 10 * time.Second // for events in the queue
	serveBudget = 3 * time.Second  // for calls being answered

	// termDrainBudget replaces drainBudget at the end by a signal: a host that
	// shuts down has no containerd any more that takes events.
	termDrainBudget = 2 * time.Second

	// termMemory is for how long a SIGTERM is remembered: longer than a host's
	// shutdown waits before it kills.
	termMemory = 2 * time.Minute
	termLook   = 50 * time.Millisecond
)

// ender runs a daemon's server until its end.
type ender struct {
	logger  *log.Entry
	service Service
	stop    <-chan struct{}
	signals <-chan os.Signal
	log     *logWriter

	termMemory time.Duration
}

func (e ender) serve(ctx context.Context, t tuning, d Daemon, listener net.Listener, release func()) error {
	present := attend(t.unattended, e.service.Idle, func() {
		e.logger.Info("no container and no connection, daemon ends")
		d.Shutdown()
	})
	defer present.stop()
	calls := watchCalls(t.quiet)
	defer calls.stop()

	server, err := ttrpc.NewServer(
		ttrpc.WithServerHandshaker(present),
		ttrpc.WithUnaryServerInterceptor(calls.intercept))
	if err != nil {
		return fmt.Errorf("make the server: %w", err)
	}
	e.service.Register(server)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()

	told, failure := e.wait(served)
	drain := drainBudget
	if told {
		drain = termDrainBudget
	}

	// First, so that a start makes a new daemon, and a delete does not take
	// this end for a crash.
	release()
	closing, done := context.WithTimeout(ctx, closeBudget)
	err = e.service.Close(closing)
	done()
	if err != nil {
		e.logger.WithError(err).Error("close the service")
	}
	draining, done := context.WithTimeout(ctx, drain)
	err = d.Publisher.Drain(draining)
	done()
	if err != nil {
		e.logger.WithError(err).Error("events are lost")
	}
	answering, done := context.WithTimeout(ctx, serveBudget)
	err = calls.answered(answering)
	done()
	if err != nil {
		e.logger.WithError(err).Error("calls are cut off")
	}
	server.Close()
	return failure
}

// wait returns when the daemon is to end: whether a signal told it to, and an
// error if it cannot go on.
func (e ender) wait(served <-chan error) (told bool, err error) {
	t := term{remembered: e.termMemory}
	defer t.forget()
	for {
		select {
		case <-e.stop:
			return false, nil
		case err := <-served:
			return false, fmt.Errorf("serve: %w", err)
		case s := <-e.signals:
			switch s {
			case unix.SIGUSR1:
				dumpGoroutines(e.logger, e.log)
			case unix.SIGTERM, unix.SIGINT:
				e.logger.WithField("signal", s).Info("signal received, daemon ends once nothing runs any more")
				t.receive()
			}
		case <-t.look:
			if !e.service.Running() {
				e.logger.Info("nothing runs any more, daemon ends as it was told")
				return true, nil
			}
			if t.over() {
				e.logger.Warn("signal ignored: the daemon has containers that run")
			}
		}
	}
}

// term is a SIGTERM, or a SIGINT, that the daemon remembers for a while.
//
// Such a signal must not end containers, but neither may it be lost: when a
// host shuts down, everything on it gets a SIGTERM and, 90 s later, what is
// still there a SIGKILL (systemd-shutdown(8)). Containers end by the SIGTERM,
// a containerd that would delete them then is gone, and a daemon that waited
// for that would hold the shutdown up.
type term struct {
	remembered time.Duration

	look     <-chan time.Time // when to look whether the daemon can end
	ticker   *time.Ticker     // nil while there is no signal to remember
	deadline time.Time
}

func (t *term) receive() {
	t.forget()
	t.ticker = time.NewTicker(termLook)
	t.look = t.ticker.C
	t.deadline = time.Now().Add(t.remembered)
}

// over forgets the signal if its time is over.
func (t *term) over() bool {
	if time.Now().Before(t.deadline) {
		return false
	}
	t.forget()
	return true
}

func (t *term) forget() {
	if t.ticker != nil {
		t.ticker.Stop()
		t.ticker, t.look = nil, nil
	}
}
