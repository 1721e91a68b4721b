package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// The files that the shim leaves in a bundle, for the delete command that
// containerd runs when the shim is gone and for people who look.
const (
	optionsFile = "options.json"
	initPidFile = "init.pid"
	exitFile    = "exit.json"
)

// maxStateSize bounds the files above, in bytes.
const maxStateSize = 64 << 10

// idPattern is what containerd allows in the ids of containers and execs
// (its package identifiers); libcontainer asks for no less.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`)

// maxIDLength is containerd's limit.
const maxIDLength = 76

func checkID(id string) error {
	if len(id) > maxIDLength || !idPattern.MatchString(id) {
		return invalid("id %q: letters and digits, joined by single . _ or -, at most %d characters", id, maxIDLength)
	}
	return nil
}

// writeAtomic writes a file such that a reader, also after a crash, sees all
// of it or none.
func writeAtomic(path string, data []byte, perm os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(perm), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// savedOptions are what the delete command has to know of a container.
type savedOptions struct {
	Root string `json:"root,omitempty"`
	// Binary is the path of the OCI runtime, empty if it is the shim itself.
	Binary string `json:"binary,omitempty"`
}

func writeOptions(bundle string, o Options) error {
	data, err := json.Marshal(savedOptions{Root: o.Root, Binary: o.Runtime.Binary})
	if err == nil {
		err = writeAtomic(filepath.Join(bundle, optionsFile), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("save the runtime options: %w", err)
	}
	return nil
}

// stateRoot is the directory of the engine's state that a container was
// created with, also if its bundle tells nothing of it.
func stateRoot(namespace, bundle string) string {
	return Options{Settings: Settings{Root: readOptions(bundle).Root}}.root(namespace, bundle)
}

// readOptions reads what writeOptions has written. What cannot be read is as
// good as not there: the defaults hold.
func readOptions(bundle string) savedOptions {
	var saved savedOptions
	if data, err := readFile(filepath.Join(bundle, optionsFile), maxStateSize); err == nil {
		_ = json.Unmarshal(data, &saved)
	}
	return saved
}

func writeInitPid(bundle string, pid int) error {
	if err := writeAtomic(filepath.Join(bundle, initPidFile), []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("save the pid of init: %w", err)
	}
	return nil
}

// readInitPid is the pid of the container's init, 0 if the bundle does not tell.
// The process may be gone, and its pid another's.
func readInitPid(bundle string) int {
	data, err := readFile(filepath.Join(bundle, initPidFile), maxStateSize)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(data))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// savedExit has the form of containerd's own shim, which its tests read.
type savedExit struct {
	Timestamp time.Time
	Pid       int
	Status    int
}

func writeExit(bundle string, pid int, e Exit) error {
	data, err := json.Marshal(savedExit{Timestamp: e.At, Pid: pid, Status: int(e.Status)})
	if err == nil {
		err = writeAtomic(filepath.Join(bundle, exitFile), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("save the exit status: %w", err)
	}
	return nil
}

// readExit reads how the container's init ended, if it did while its shim was
// alive.
func readExit(bundle string) (pid int, e Exit, ok bool, err error) {
	data, err := readFile(filepath.Join(bundle, exitFile), maxStateSize)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, Exit{}, false, nil
	}
	if err != nil {
		return 0, Exit{}, false, fmt.Errorf("read the exit status: %w", err)
	}
	var s savedExit
	if err := json.Unmarshal(data, &s); err != nil {
		return 0, Exit{}, false, fmt.Errorf("read the exit status: %w", err)
	}
	if s.Pid <= 0 || s.Timestamp.IsZero() || s.Status < 0 {
		return 0, Exit{}, false, fmt.Errorf("exit status in %s is not one: %+v", exitFile, s)
	}
	return s.Pid, Exit{Status: uint32(s.Status), At: s.Timestamp}, true, nil
}
