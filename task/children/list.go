package children

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Of are the child processes of one of the calling process's threads (proc(5),
// /proc/pid/task/tid/children), zombies included. One may be missed while others
// are reaped.
func Of(tid int) ([]int, error) {
	return of(fmt.Sprintf("/proc/self/task/%d", tid))
}

// AllOf are the same, and none is missed. It reads as often as the children
// change meanwhile, until it has the same list twice: the kernel passes over a
// child only where one that it has listed before is reaped during the reading,
// and that one is not in the next list.
func AllOf(tid int) ([]int, error) {
	before, err := Of(tid)
	for err == nil {
		var now []int
		if now, err = Of(tid); err == nil && slices.Equal(before, now) {
			return now, nil
		}
		before = now
	}
	return nil, err
}

// of are the children of the thread whose directory in /proc is given.
func of(thread string) ([]int, error) {
	data, err := os.ReadFile(filepath.Join(thread, "children"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("list of children: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
