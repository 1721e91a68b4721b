package external

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// runtime is how the runtime's commands are run for one container.
type runtime struct {
	binary  string
	root    string // the runtime's state of all containers of the namespace
	bundle  string
	id      string
	systemd bool // systemd makes the cgroups
}

// scratchPattern names the directories, in the bundle, of what a single
// command needs and tells: log, pid, console socket.
const scratchPattern = ".runtime-*"

// logFile is the runtime's log: in the bundle that of create, where people
// and containerd's own tools look; in a scratch directory that of another
// command, since several run at once.
const logFile = "log.json"

// do runs one command of the runtime with a scratch directory of its own.
func (r runtime) do(command func(c *runc.Runc, scratch string) error) error {
	scratch, err := os.MkdirTemp(r.bundle, scratchPattern)
	if err != nil {
		return fmt.Errorf("directory for the runtime's log: %w", err)
	}
	defer os.RemoveAll(scratch)
	c := r.command(filepath.Join(scratch, logFile))
	return inWords(command(c, scratch), c.Log)
}

func (r runtime) command(log string) *runc.Runc {
	return &runc.Runc{
		Command: r.binary, WorkDir: r.bundle, Root: r.root, Log: log, LogFormat: runc.JSON,
		PdeathSignal: unix.SIGKILL, SystemdCgroup: r.systemd,
	}
}

// stateDir is where the runtime keeps the container's state.
func (r runtime) stateDir() string { return filepath.Join(r.root, r.id) }

// hasState tells whether the runtime knows, or has begun to know, the
// container.
func (r runtime) hasState() bool {
	_, err := os.Lstat(r.stateDir())
	return err == nil
}

// delete removes the container and ends what runs of it; that there is none
// is no error.
func (r runtime) delete(ctx context.Context) error {
	if !r.hasState() {
		return nil
	}
	err := r.do(func(c *runc.Runc, _ string) error {
		return c.Delete(ctx, r.id, &runc.DeleteOpts{Force: true})
	})
	if err != nil && !r.hasState() {
		return nil // somebody else was quicker
	}
	return err
}

// streams are the standard streams of a process that a command is to make,
// as go-runc wants them: all of them, or it would read the outputs through
// pipes that the process inherits, and wait for their end.
type streams struct {
	files task.Files
	null  *os.File
}

var _ runc.IO = streams{}

// bear runs a command that makes a process and adopts that process. files are
// its streams, pidFile where the runtime tells its pid, scratch a directory
// for the console socket.
func (a *adopter) bear(files task.Files, pidFile, scratch string, command func(runc.IO, runc.ConsoleSocket) error) (*child, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	b := a.begin()
	defer a.end(b)
	s := streams{files: files, null: null}
	if files.Console == nil {
		err = command(s, nil)
	} else {
		var c *console
		if c, err = newConsole(scratch, files.Console); err == nil {
			err = c.finish(command(s, c))
		}
	}
	if err != nil {
		return nil, err
	}
	return a.adopt(b, pidFile)
}

// Set is called by go-runc before the command starts.
func (s streams) Set(cmd *exec.Cmd) {
	if s.files.Stdin != nil {
		cmd.Stdin = s.files.Stdin
	}
	cmd.Stdout, cmd.Stderr = s.null, s.null
	if s.files.Stdout != nil {
		cmd.Stdout = s.files.Stdout
	}
	if s.files.Stderr != nil {
		cmd.Stderr = s.files.Stderr
	}
}

// What follows is for streams that are go-runc's own: these are their opener's
// to close.

func (s streams) Close() error          { return nil }
func (s streams) Stdin() io.WriteCloser { return nil }
func (s streams) Stdout() io.ReadCloser { return nil }
func (s streams) Stderr() io.ReadCloser { return nil }
