package task

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// attachBudget bounds the wait for a client to open its end of a FIFO.
const attachBudget = 30 * time.Second

// attachPoll is how often the FIFO is tried meanwhile. A client normally has
// it open before it asks for the process.
const attachPoll = 2 * time.Millisecond

// output is where one of a process's output streams goes.
type output struct {
	w *os.File
	// keep is the shim's own reader of a FIFO; nil otherwise.
	keep *os.File
	// direct: w is the process's own end; there is nothing to copy.
	direct bool
}

// openOutputs opens where stdout and stderr go.
func (s *stdio) openOutputs(ctx context.Context, namespace, id string, u URIs) (outs [2]*output, err error) {
	if u.Stdout == "" && u.Stderr == "" {
		return outs, nil
	}
	uri, err := url.Parse(u.Stdout)
	if err != nil {
		return outs, invalid("stdout %q: %v", u.Stdout, err)
	}
	paths := [2]string{u.Stdout, u.Stderr}
	switch uri.Scheme {
	case "":
	case "fifo":
		if paths[0], paths[1], err = fifoPaths(uri, u.Stderr); err != nil {
			return outs, err
		}
	case "file":
		if err := createLogFile(uri.Path); err != nil {
			return outs, err
		}
		paths = [2]string{uri.Path, uri.Path}
	case "binary", "binary-v2":
		s.logger, outs, err = startLogger(ctx, uri, namespace, id, u.Terminal)
		s.keepOutputs(outs)
		return outs, err
	default:
		return outs, invalid("unknown STDIO scheme %s", uri.Scheme)
	}
	if u.Terminal {
		paths[1] = ""
	}
	for i, path := range paths {
		if path == "" {
			continue
		}
		if outs[i], err = openOutput(ctx, path); err != nil {
			return outs, err
		}
		s.outputs = append(s.outputs, outs[i])
	}
	return outs, nil
}

func (s *stdio) keepOutputs(outs [2]*output) {
	for _, o := range outs {
		if o != nil {
			s.outputs = append(s.outputs, o)
		}
	}
}

// fifoPaths are the paths in the URIs of two FIFOs.
func fifoPaths(stdout *url.URL, stderr string) (string, string, error) {
	if stderr == "" {
		return stdout.Path, "", nil
	}
	u, err := url.Parse(stderr)
	if err != nil {
		return "", "", invalid("stderr %q: %v", stderr, err)
	}
	return stdout.Path, u.Path, nil
}

// Modes of what file:// makes, those of containerd's own shim.
const (
	logDirMode  = 0o755
	logFileMode = 0o644
)

func createLogFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), logDirMode); err != nil {
		return fmt.Errorf("directory of the log: %w", err)
	}
	// Should it be a FIFO, this does not wait for its reader.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|unix.O_NONBLOCK, logFileMode)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return f.Close()
}

// openOutput opens a FIFO for writing once a client reads it, or a file for
// appending.
//
// The wait matters: a client that opens a FIFO only after the process has
// ended, and with it the last writer, would wait for a writer for ever.
func openOutput(ctx context.Context, path string) (*output, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open the output: %w", err)
	}
	if st.Mode()&os.ModeNamedPipe == 0 {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return nil, fmt.Errorf("open the output: %w", err)
		}
		return &output{w: f}, nil
	}
	w, err := openFIFOWriter(ctx, path)
	if err != nil {
		return nil, err
	}
	keep, err := openFIFO(path, unix.O_RDONLY)
	if err != nil {
		w.Close()
		return nil, err
	}
	return &output{w: w, keep: keep}, nil
}

// openFIFOWriter waits until the FIFO has a reader.
func openFIFOWriter(ctx context.Context, path string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, attachBudget)
	defer cancel()
	for {
		w, err := openFIFO(path, unix.O_WRONLY)
		if !errors.Is(err, unix.ENXIO) {
			return w, err
		}
		select {
		case <-time.After(attachPoll):
		case <-ctx.Done():
			return nil, fmt.Errorf("FIFO %s: nobody has opened it for reading: %w", path, ctx.Err())
		}
	}
}

// openFIFO opens one end of a FIFO without ever blocking (fifo(7)).
func openFIFO(path string, mode int) (*os.File, error) {
	for {
		fd, err := unix.Open(path, mode|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case !errors.Is(err, unix.EINTR):
			return nil, &os.PathError{Op: "open FIFO", Path: path, Err: err}
		}
	}
}

// openInput opens the FIFO that input comes from, for reading and, so that
// the input does not end with the client, for writing as well.
func (s *stdio) openInput(path string) (*os.File, error) {
	r, err := openFIFO(path, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open the input: %w", err)
	}
	s.inputs = append(s.inputs, r)
	w, err := openFIFO(path, unix.O_WRONLY)
	if err != nil {
		return nil, fmt.Errorf("open the input: %w", err)
	}
	s.stdin = w
	return r, nil
}

// pipe makes a pipe that the process reads and the shim writes.
func pipe(who owner) (process, shim *os.File, err error) {
	return newPipe(who, 0)
}

// pipeOut makes a pipe that the shim reads and the process writes.
func pipeOut(who owner) (shim, process *os.File, err error) {
	process, shim, err = newPipe(who, 1)
	return shim, process, err
}

// newPipe makes a pipe; theirs is the index of the process's end, which
// belongs to who, so that the process can open it again by /proc/self/fd. Only
// the shim's end does not block: that is a property of an end, which the
// process would inherit.
func newPipe(who owner, theirs int) (process, shim *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	ours := 1 - theirs
	err = unix.SetNonblock(fds[ours], true)
	if err == nil && who != (owner{}) {
		err = unix.Fchown(fds[theirs], who.uid, who.gid)
	}
	if err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(fds[theirs]), "pipe"), os.NewFile(uintptr(fds[ours]), "pipe"), nil
}
