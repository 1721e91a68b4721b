package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is a process that can be told from a later one with its pid.
type Process struct {
	Pid int `json:"pid"`
	// Start is field 22 of /proc/pid/stat, in clock ticks since boot.
	Start uint64 `json:"start"`
	// Namespace is the inode of the PID namespace in which it has that pid: a
	// process of another one than the reader's is never taken for dead.
	Namespace uint64 `json:"namespace"`
}

// ProcessOf describes a living process by its pid as this process sees it.
func ProcessOf(pid int) (Process, error) {
	stat, err := readStat(pid)
	if err != nil {
		return Process{}, fmt.Errorf("describe process %d: %w", pid, err)
	}
	var namespace unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &namespace); err != nil {
		return Process{}, fmt.Errorf("describe process %d: find own PID namespace: %w", pid, err)
	}
	return Process{Pid: pid, Start: stat.start, Namespace: namespace.Ino}, nil
}

// self describes this process. It fails where /proc is that of another PID
// namespace, in which its pids would be taken for others'.
func self() (Process, error) {
	link, err := os.Readlink("/proc/self")
	if err != nil {
		return Process{}, fmt.Errorf("find own process: %w", err)
	}
	if link != strconv.Itoa(os.Getpid()) {
		return Process{}, fmt.Errorf("/proc is of another PID namespace: it knows process %d as %s", os.Getpid(), link)
	}
	return ProcessOf(os.Getpid())
}

// isDead tells that a process no longer runs. Where it is not certain it lives.
func (l *Ledger) isDead(p Process) bool {
	if p.Namespace != l.self.Namespace {
		return false
	}
	stat, err := readStat(p.Pid)
	if err != nil {
		// ESRCH: it died between the opening and the reading.
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	return stat.start != p.Start || stat.dead()
}

// stat is what is used here of /proc/pid/stat, proc_pid_stat(5).
type stat struct {
	state   byte
	threads int
	start   uint64
}

// dead tells a process that has exited and is not reaped. One whose first
// thread has exited alone is shown as a zombie as well, but has others.
func (s stat) dead() bool {
	return s.state == 'X' || s.state == 'Z' && s.threads <= 1
}

func readStat(pid int) (stat, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	text, err := os.ReadFile(path)
	if err != nil {
		return stat{}, err
	}
	s, err := parseStat(text)
	if err != nil {
		return stat{}, fmt.Errorf("parse %s: %w", path, err)
	}
	return s, nil
}

// parseStat reads the fields after the second, the name of the program, which
// may hold blanks and parentheses.
func parseStat(text []byte) (stat, error) {
	const (
		stateField   = 3
		threadsField = 20
		startField   = 22
	)
	name := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[name+1:]))
	if name < 0 || len(fields) <= startField-stateField || len(fields[0]) != 1 {
		return stat{}, fmt.Errorf("%.80q: %w", text, strconv.ErrSyntax)
	}
	threads, err := strconv.Atoi(fields[threadsField-stateField])
	if err != nil {
		return stat{}, fmt.Errorf("number of threads: %w", err)
	}
	start, err := strconv.ParseUint(fields[startField-stateField], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("start time: %w", err)
	}
	return stat{state: fields[0][0], threads: threads, start: start}, nil
}

// bootIDLength is that of a UUID, in bytes.
const bootIDLength = 36

// bootID is the kernel's random UUID of this boot, random(4).
func bootID() (string, error) {
	const path = "/proc/sys/kernel/random/boot_id"
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("find out which boot this is: %w", err)
	}
	id := strings.TrimSpace(string(text))
	if len(id) != bootIDLength || strings.ContainsFunc(id, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef-", r) }) {
		return "", fmt.Errorf("%s holds %.80q, which is no UUID", path, id)
	}
	return id, nil
}
