package external

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
	"containerd-shim-numa-v1/task/children"
)

// adopter has the kernel give the shim the orphans among its descendants and
// reaps those that nobody else waits for: what a container without a PID
// namespace of its own leaves behind, and the failed stages of a runtime.
//
// An adopted process becomes a child of the main thread (find_new_reaper in
// the kernel's exit.c takes the first thread that is alive), and no other
// process does: children are those of the thread that started them. So the
// commands, loggers and helpers that others in the shim started and wait for
// are never looked at (docs/decisions/adopted-processes.md).
//
// A process has one adopter at most.
type adopter struct {
	sigchld chan os.Signal
	again   chan struct{} // holds a token if the children are to be looked at
	stop    chan struct{}
	stopped chan struct{}

	mu     sync.Mutex // guards what follows
	births map[*birth]struct{}
	// claims counts the waiters of a pid: one that has just reaped may not
	// have let go of it when the next process of that pid is claimed.
	claims map[int]int
}

// birth is a command of the runtime that makes a process for the shim to wait
// for. The shim learns its pid when the command has ended, but may have
// adopted it long before (crun forks twice for an exec), and reaped it.
type birth struct {
	// exits are of the strangers that were reaped since the birth began. A
	// pid would have to come round again during one birth to be mistaken.
	exits map[int]task.Exit
}

func newAdopter() (*adopter, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become a subreaper: %w", err)
	}
	a := &adopter{
		sigchld: make(chan os.Signal, 1), again: make(chan struct{}, 1),
		stop: make(chan struct{}), stopped: make(chan struct{}),
		births: map[*birth]struct{}{}, claims: map[int]int{},
	}
	signal.Notify(a.sigchld, unix.SIGCHLD)
	go a.run()
	return a, nil
}

// close ends the adoption. What has been adopted stays, and is the shim's
// until it ends.
func (a *adopter) close() error {
	signal.Stop(a.sigchld)
	close(a.stop)
	<-a.stopped
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cease to be a subreaper: %w", err)
	}
	return nil
}

func (a *adopter) run() {
	defer close(a.stopped)
	for {
		select {
		case <-a.sigchld:
		case <-a.again:
		case <-a.stop:
			return
		}
		if err := a.reapStrangers(); err != nil {
			log.L.WithError(err).Warn("cannot look for adopted processes: zombies may stay")
		}
	}
}

// lookAgain has the children looked at once more. The kernel's list of them
// may miss one while others leave it (proc(5)), so this follows each reaping.
func (a *adopter) lookAgain() {
	select {
	case a.again <- struct{}{}:
	default:
	}
}

// reapStrangers reaps the adopted processes that have exited and that nobody
// waits for. It never holds one back for a birth, which may take for ever: a
// zombie in a PID namespace keeps the namespace's init from ending.
//
// No system call here blocks, so the lock may be held over them.
func (a *adopter) reapStrangers() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	pids, err := adoptedChildren()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if a.claims[pid] > 0 {
			continue
		}
		var ws unix.WaitStatus
		if got, err := unix.Wait4(pid, &ws, unix.WNOHANG|unix.WALL, nil); err != nil || got != pid {
			continue
		}
		exit := task.ExitOf(ws, time.Now())
		for b := range a.births {
			b.exits[pid] = exit
		}
		a.lookAgain()
	}
	return nil
}

// begin announces a birth, before its command starts.
func (a *adopter) begin() *birth {
	b := &birth{exits: map[int]task.Exit{}}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.births[b] = struct{}{}
	return b
}

// end ends a birth.
func (a *adopter) end(b *birth) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.births, b)
}

// claim reserves the waiting for the process pid that was born in b. It
// returns its exit if it has been reaped already.
func (a *adopter) claim(b *birth, pid int) *task.Exit {
	a.mu.Lock()
	defer a.mu.Unlock()
	if exit, reaped := b.exits[pid]; reaped && !isChild(pid) {
		return &exit
	}
	a.claims[pid]++
	return nil
}

// isChild tells whether pid is a child that has not been reaped, whose pid is
// thus its own.
func isChild(pid int) bool {
	return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil) == nil
}

// release ends a claim.
func (a *adopter) release(pid int) {
	a.mu.Lock()
	if a.claims[pid]--; a.claims[pid] == 0 {
		delete(a.claims, pid)
	}
	a.mu.Unlock()
	a.lookAgain()
}

// adoptedChildren are the main thread's children.
func adoptedChildren() ([]int, error) { return children.Of(os.Getpid()) }
