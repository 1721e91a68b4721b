package task

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// fakeEngine makes containers of processes that are goroutines. A test says,
// by call, what happens before the call does its work.
type fakeEngine struct {
	mu    sync.Mutex
	hooks map[string]func(context.Context) error // "create", "start", "exec", …
	made  []*fakeInstance
	pids  atomic.Int64
	// streams, if set, takes over a process's ends of its streams.
	streams func(Files)
}

// impossiblePID is above any pid (PID_MAX_LIMIT is 2^22): what looks for a
// fake process in /proc finds nothing.
const impossiblePID = 1 << 23

func newFakeEngine() *fakeEngine {
	e := &fakeEngine{hooks: map[string]func(context.Context) error{}}
	e.pids.Store(impossiblePID)
	return e
}

// on sets what call does first; nil takes it away.
func (e *fakeEngine) on(call string, hook func(context.Context) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hooks[call] = hook
}

func (e *fakeEngine) run(ctx context.Context, call string) error {
	e.mu.Lock()
	hook := e.hooks[call]
	e.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx)
}

// last is the container that was made last.
func (e *fakeEngine) last() *fakeInstance {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.made[len(e.made)-1]
}

func (e *fakeEngine) Create(ctx context.Context, r CreateRequest) (Instance, error) {
	if err := e.run(ctx, "create"); err != nil {
		return nil, err
	}
	i := &fakeInstance{engine: e, sharesPIDs: sharesPIDNamespace(r.Spec), request: r}
	i.init = e.newChild()
	if e.streams != nil {
		e.streams(r.Stdio)
	}
	i.init.onExit = i.initGone
	e.mu.Lock()
	e.made = append(e.made, i)
	e.mu.Unlock()
	return i, nil
}

// Restore makes a container whose Start makes its init.
func (e *fakeEngine) Restore(ctx context.Context, r RestoreRequest) (Instance, error) {
	if err := e.run(ctx, "restore"); err != nil {
		return nil, err
	}
	i := &fakeInstance{engine: e, request: r.CreateRequest, restores: true, init: e.newChild()}
	i.init.onExit = i.initGone
	e.mu.Lock()
	e.made = append(e.made, i)
	e.mu.Unlock()
	return i, nil
}

func (e *fakeEngine) newChild() *fakeChild {
	return &fakeChild{pid: int(e.pids.Add(1)), done: make(chan struct{})}
}

type fakeInstance struct {
	engine     *fakeEngine
	sharesPIDs bool
	init       *fakeChild
	request    CreateRequest
	restores   bool              // and has no init before its Start
	checkpoint CheckpointRequest // the last

	mu      sync.Mutex
	updates []*specs.LinuxResources
	execs   []*fakeChild
	frozen  bool
	deleted bool
}

// initGone ends the other processes of a PID namespace.
func (i *fakeInstance) initGone() {
	if !i.sharesPIDs {
		i.endExecs()
	}
}

func (i *fakeInstance) endExecs() {
	i.mu.Lock()
	execs := append([]*fakeChild(nil), i.execs...)
	i.mu.Unlock()
	for _, c := range execs {
		c.exit(signalStatusBase + 9)
	}
}

func (i *fakeInstance) lastExec() *fakeChild {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.execs[len(i.execs)-1]
}

func (i *fakeInstance) Init() Child { return i.init }

func (i *fakeInstance) Start(ctx context.Context) error {
	if err := i.engine.run(ctx, "start"); err != nil {
		return err
	}
	i.mu.Lock()
	i.restores = false
	i.mu.Unlock()
	return nil
}

func (i *fakeInstance) Exec(ctx context.Context, _ *specs.Process, f Files) (Child, error) {
	if err := i.engine.run(ctx, "exec"); err != nil {
		return nil, err
	}
	if i.engine.streams != nil {
		i.engine.streams(f)
	}
	c := i.engine.newChild()
	i.mu.Lock()
	if i.init.gone() && !i.sharesPIDs {
		i.mu.Unlock()
		return nil, errors.New("exec failed: the namespace is gone")
	}
	i.execs = append(i.execs, c)
	i.mu.Unlock()
	if i.init.gone() && !i.sharesPIDs {
		c.exit(signalStatusBase + 9)
	}
	return c, i.engine.run(ctx, "exec made")
}

func (i *fakeInstance) KillAll(sig unix.Signal) error {
	if err := i.engine.run(context.Background(), "killall"); err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		_ = i.init.Signal(sig)
		i.endExecs()
	}
	return nil
}

func (i *fakeInstance) freeze(ctx context.Context, call string, frozen bool) error {
	if err := i.engine.run(ctx, call); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.frozen = frozen
	return nil
}

func (i *fakeInstance) isFrozen() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.frozen
}

func (i *fakeInstance) Pause(ctx context.Context) error  { return i.freeze(ctx, "pause", true) }
func (i *fakeInstance) Resume(ctx context.Context) error { return i.freeze(ctx, "resume", false) }

func (i *fakeInstance) Update(ctx context.Context, r *specs.LinuxResources) error {
	if err := i.engine.run(ctx, "update"); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.updates = append(i.updates, r)
	return nil
}

func (i *fakeInstance) Pids() ([]int, error) {
	pids := []int{i.init.pid}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, c := range i.execs {
		if !c.gone() {
			pids = append(pids, c.pid)
		}
	}
	return pids, nil
}

func (i *fakeInstance) Checkpoint(ctx context.Context, r CheckpointRequest) error {
	i.mu.Lock()
	i.checkpoint = r
	i.mu.Unlock()
	return i.engine.run(ctx, "checkpoint")
}

// Delete asserts what Engine promises to be called for.
func (i *fakeInstance) Delete(ctx context.Context) error {
	i.mu.Lock()
	unborn := i.restores
	i.mu.Unlock()
	if !i.init.gone() && !unborn {
		return errors.New("delete of a container that runs")
	}
	if err := i.engine.run(ctx, "delete"); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.deleted = true
	return nil
}

// fakeChild is a process that exits when it is told to.
type fakeChild struct {
	pid     int
	done    chan struct{}
	onExit  func()
	waits   atomic.Int32
	signals atomic.Int32
	// stubborn: SIGKILL has no effect, as on a process in a D state.
	stubborn atomic.Bool

	once   sync.Once
	status uint32
}

func (c *fakeChild) exit(status uint32) {
	c.once.Do(func() {
		c.status = status
		close(c.done)
		if c.onExit != nil {
			c.onExit()
		}
	})
}

func (c *fakeChild) gone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *fakeChild) Pid() int { return c.pid }

func (c *fakeChild) Signal(sig unix.Signal) error {
	if c.gone() {
		return os.ErrProcessDone
	}
	c.signals.Add(1)
	if (sig == unix.SIGKILL || sig == unix.SIGTERM) && !c.stubborn.Load() {
		c.exit(signalStatusBase + uint32(sig))
	}
	return nil
}

func (c *fakeChild) Wait() Exit {
	c.waits.Add(1)
	<-c.done
	return Exit{Status: c.status, At: time.Now()}
}

// gate is a hook that holds calls up until it is opened.
type gate struct {
	entered chan struct{} // has one for each call held up
	open    chan struct{}
	err     error
}

func newGate() *gate {
	return &gate{entered: make(chan struct{}, 100), open: make(chan struct{})}
}

func (g *gate) hook(ctx context.Context) error {
	g.entered <- struct{}{}
	select {
	case <-g.open:
		return g.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failing is a hook that fails.
func failing(context.Context) error { return errFake }

var errFake = errors.New("the engine has failed")

// waitedOnce checks that every process has had one waiter.
func (e *fakeEngine) waitedOnce(t testing.TB) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, i := range e.made {
		for _, c := range append([]*fakeChild{i.init}, i.execs...) {
			if n := c.waits.Load(); n != 1 {
				t.Errorf("process %d has been waited for %d times", c.pid, n)
			}
		}
	}
}
