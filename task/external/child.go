package external

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
	"containerd-shim-numa-v1/task/children"
)

// child is a process of a container that the shim has adopted.
type child struct {
	adopter *adopter
	pid     int
	handle  *children.Handle
	exit    *task.Exit // of one that was reaped before it was known; no handle
}

// adopt takes over the process, born in b, whose pid the runtime has written
// to pidFile.
func (a *adopter) adopt(b *birth, pidFile string) (*child, error) {
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, fmt.Errorf("the runtime has told no pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return nil, fmt.Errorf("the runtime has told the pid %q", data)
	}
	exit := a.claim(b, pid)
	if exit != nil {
		return &child{adopter: a, pid: pid, exit: exit}, nil
	}
	// As long as it has not been waited for, its pid is its own.
	h, err := children.Open(pid)
	if err != nil {
		a.release(pid)
		return nil, err
	}
	return &child{adopter: a, pid: pid, handle: h}, nil
}

func (c *child) Pid() int { return c.pid }

// Signal sends sig through the pidfd.
func (c *child) Signal(sig unix.Signal) error {
	if c.exit != nil {
		return os.ErrProcessDone
	}
	return c.handle.Signal(sig)
}

// Wait awaits the exit and then reaps the process.
func (c *child) Wait() task.Exit {
	if c.exit != nil {
		return *c.exit
	}
	defer c.adopter.release(c.pid)
	defer c.handle.Close()
	c.handle.AwaitExit()
	at := time.Now()
	ws, err := children.Reap(c.pid)
	if err != nil {
		// It is not the shim's child after all.
		return task.Exit{Status: task.StatusUnknown, At: at}
	}
	return task.ExitOf(ws, at)
}
