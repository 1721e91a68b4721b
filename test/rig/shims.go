package rig

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Shim is one running shim of this machine.
type Shim struct {
	Pid int
	ID  string // the container or group id it was started for
	// Command is "start" or "delete" of a process that containerd runs for a
	// moment, and empty of one that serves.
	Command string
}

// Shims lists the shim processes whose binary has the given name. A shim
// about to replace its binary (deleted on disk) counts as well.
func Shims(binary string) []Shim {
	var shims []Shim
	for _, pid := range pids() {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != binary {
			continue
		}
		args := strings.Fields(ProcessName(pid))
		shim := Shim{Pid: pid}
		for i, a := range args {
			if a == "-id" && i+1 < len(args) {
				shim.ID = args[i+1]
			}
		}
		if n := len(args); n > 0 && (args[n-1] == "start" || args[n-1] == "delete") {
			shim.Command = args[n-1]
		}
		shims = append(shims, shim)
	}
	return shims
}

// ShimBinary is the file name containerd derives from a runtime's name: the
// last two parts of io.containerd.runc.v2 make containerd-shim-runc-v2.
func ShimBinary(runtime string) string {
	parts := strings.Split(runtime, ".")
	return "containerd-shim-" + strings.Join(parts[max(len(parts)-2, 0):], "-")
}

// PSS is a process's proportional set size in KiB (proc_pid_smaps(5),
// smaps_rollup since Linux 4.14): its private memory and its share of the
// rest.
func PSS(pid int) (kib int, err error) {
	path := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 1 && f[0] == "Pss:" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("%s has no Pss line", path)
}
