package native

import (
	"errors"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// Wait awaits the exit and only then lets libcontainer reap the process, for
// which it blocks a thread.
func (c *child) Wait() task.Exit {
	defer c.Close()
	c.AwaitExit()
	at := time.Now()
	state, err := c.process.Wait()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return task.Exit{Status: task.StatusUnknown, At: at}
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return task.Exit{Status: task.StatusUnknown, At: at}
	}
	return task.ExitOf(unix.WaitStatus(ws), at)
}
