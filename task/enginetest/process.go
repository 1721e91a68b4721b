package enginetest

import (
	"io"
	"os"
	"testing"
	"time"

	"containerd-shim-numa-v1/task"
)

// bound is how long anything may take that takes milliseconds when all is
// well. Exceeding it means stuck, not slow.
const bound = time.Minute

// Waited is a process with its waiter.
type Waited struct {
	task.Child
	done chan struct{}
	exit task.Exit
}

// Wait waits for a process, which nobody else does.
func Wait(c task.Child) *Waited {
	w := &Waited{Child: c, done: make(chan struct{})}
	go func() { w.exit = c.Wait(); close(w.done) }()
	return w
}

// Exit is how the process ended, once it has.
func (w *Waited) Exit(t testing.TB) task.Exit {
	t.Helper()
	select {
	case <-w.done:
		return w.exit
	case <-time.After(bound):
		t.Fatal("the process does not exit")
		return task.Exit{}
	}
}

// Status is the status with which the process exits.
func (w *Waited) Status(t testing.TB) uint32 {
	t.Helper()
	return w.Exit(t).Status
}

// Gone tells whether the process has exited.
func (w *Waited) Gone() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// Exec runs a process in a container.
func Exec(t testing.TB, i task.Instance, args ...string) *Waited {
	t.Helper()
	child, err := i.Exec(t.Context(), Process(args...), task.Files{})
	must(t, err)
	return Wait(child)
}

// Output runs a process in a container, which is to succeed, and reads what it
// writes.
func Output(t testing.TB, i task.Instance, args ...string) string {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	child, err := i.Exec(t.Context(), Process(args...), task.Files{Stdout: w})
	w.Close()
	must(t, err)
	p := Wait(child)
	data, err := io.ReadAll(r)
	must(t, err)
	if s := p.Status(t); s != 0 {
		t.Errorf("%q: exit status %d", args, s)
	}
	return string(data)
}
