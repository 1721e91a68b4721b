package shim

import (
	"context"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/ttrpc"
)

const (
	// unattendedLimit is how long a daemon without containers stays when
	// nobody is connected. containerd connects right after start and keeps
	// the connection, so such a daemon was forgotten: by a containerd that
	// ended between start and connecting, or that lost its record.
	unattendedLimit = time.Minute

	// quietTime is how long after the last call began or ended the daemon
	// gives free memory back to the kernel.
	quietTime = 30 * time.Second

	// answerGrace is how long an answer may take from its call's end to the
	// socket.
	answerGrace = 20 * time.Millisecond
)

// attendance counts the connections of a daemon and ends it when it is
// neither attended nor needed.
type attendance struct {
	credentials ttrpc.Handshaker
	limit       time.Duration
	idle        func() bool
	end         func()

	mu    sync.Mutex // guards what follows; nothing is called with it held
	conns int
	timer *time.Timer // runs while conns is 0
	over  bool
}

func attend(limit time.Duration, idle func() bool, end func()) *attendance {
	a := &attendance{
		credentials: ttrpc.UnixSocketRequireSameUser(),
		limit:       limit,
		idle:        idle,
		end:         end,
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer = time.AfterFunc(limit, a.audit)
	return a
}

// Handshake admits a connection of the same user and counts it until it is
// closed.
func (a *attendance) Handshake(ctx context.Context, conn net.Conn) (net.Conn, any, error) {
	admitted, credentials, err := a.credentials.Handshake(ctx, conn)
	if err != nil {
		return nil, nil, err
	}
	a.mu.Lock()
	a.conns++
	a.timer.Stop()
	a.mu.Unlock()
	return &attendedConn{Conn: admitted, leave: sync.OnceFunc(a.leave)}, credentials, nil
}

func (a *attendance) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns--
	a.restart()
}

// restart needs mu.
func (a *attendance) restart() {
	if a.conns == 0 && !a.over {
		a.timer.Reset(a.limit)
	}
}

func (a *attendance) audit() {
	idle := a.idle()
	a.mu.Lock()
	unneeded := idle && a.conns == 0 && !a.over
	if !unneeded {
		a.restart()
	}
	a.mu.Unlock()
	if unneeded {
		a.end()
	}
}

func (a *attendance) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.timer.Stop()
}

type attendedConn struct {
	net.Conn
	leave func()
}

func (c *attendedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// calls watches the calls that the daemon answers. After a time in which none
// began or ended it gives free memory back, once: a daemon in which nothing
// happens is not woken again.
type calls struct {
	quiet    time.Duration
	timer    *time.Timer
	underWay atomic.Int64
}

func watchCalls(quiet time.Duration) *calls {
	return &calls{quiet: quiet, timer: time.AfterFunc(quiet, giveBack)}
}

// giveBack returns free memory to the kernel. Where nothing was collected yet
// nothing is free, and to collect for that would cost memory (firstGCPercent).
func giveBack() {
	var collections debug.GCStats
	if debug.ReadGCStats(&collections); collections.NumGC > 0 {
		debug.FreeOSMemory()
	}
}

// intercept notes that a call began or ended. A Wait call lasts as long as
// its container, so the time without calls is not one in which none is under
// way.
func (c *calls) intercept(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
	c.underWay.Add(1)
	c.timer.Reset(c.quiet)
	defer func() {
		c.timer.Reset(c.quiet)
		c.underWay.Add(-1)
	}()
	return method(withTrace(ctx), unmarshal)
}

// answered waits until no call is under way and the answers had time to get
// on the wire. The server's own Shutdown takes a connection for idle that has
// a first call under way, and does not tell when an answer was written.
func (c *calls) answered(ctx context.Context) error {
	for {
		none := c.underWay.Load() == 0
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(answerGrace):
		}
		if none && c.underWay.Load() == 0 {
			return nil
		}
	}
}

func (c *calls) stop() { c.timer.Stop() }
