package children

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Of are the child processes of one of the calling process's threads (proc(5),
// /proc/pid/task/tid/children). One may be missed while others exit.
func Of(tid int) ([]int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", tid))
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
