package native

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// spawn runs start, which has libcontainer fork the stages of an init, and
// reaps what it leaves if it fails.
//
// A stage that has failed is libcontainer's to wait for only while all goes
// well; runc itself just exits. Here it would stay a zombie, and a zombie in a
// container's PID namespace keeps the container's init from ever finishing
// its exit (pid_namespaces(7)). The stages are siblings, all of them children
// of the thread that forked the first (CLONE_PARENT in clone(2)). So start
// keeps to one thread, whose children that were not there before are its own.
func spawn(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, listErr := children()
	err := start()
	if err == nil {
		return nil
	}
	after, afterErr := children()
	if listErr := errors.Join(listErr, afterErr); listErr != nil {
		return errors.Join(err, fmt.Errorf("look for what it left: %w", listErr))
	}
	for _, pid := range after {
		if !slices.Contains(before, pid) {
			reap(pid)
		}
	}
	return err
}

// children are the child processes of the calling thread (proc(5),
// /proc/pid/task/tid/children).
func children() ([]int, error) {
	data, err := os.ReadFile("/proc/thread-self/children")
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// reap ends a child and waits for it. Its pid is its own until then.
func reap(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		_, err := unix.Wait4(pid, nil, unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
