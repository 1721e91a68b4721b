package children

import (
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Kill kills the children of one of the calling process's threads, and theirs,
// but those that are to be spared. It waits for none, and what has lost its
// parent before lives on.
func Kill(tid int, spared []int) { kill(fmt.Sprintf("/proc/self/task/%d", tid), spared) }

func kill(thread string, spared []int) {
	pids, err := of(thread)
	if err != nil {
		return // the thread is gone
	}
	for _, pid := range pids {
		if slices.Contains(spared, pid) {
			continue
		}
		h, err := Open(pid)
		if err != nil {
			continue
		}
		// The handle is of whom the list told if the list still tells of it.
		// Its children come first: they would be somebody else's after it.
		if now, err := of(thread); err == nil && slices.Contains(now, pid) {
			threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
			for _, t := range threads {
				kill(t, nil)
			}
			_ = h.Signal(unix.SIGKILL)
		}
		h.Close()
	}
}
