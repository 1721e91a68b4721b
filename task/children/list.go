package children

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Of are the child processes of one of the calling process's threads (proc(5),
// /proc/pid/task/tid/children). One may be missed while others exit.
func Of(tid int) ([]int, error) {
	return of(fmt.Sprintf("/proc/self/task/%d", tid))
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
