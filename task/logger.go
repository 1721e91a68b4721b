package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// loggerStopBudget is the time a logging program has to end by itself after
// SIGTERM.
const loggerStopBudget = 12 * time.Second

// logger is a program that reads a process's output, as a client's binary://
// asks for. It finds stdout on descriptor 3, stderr on 4 and on 5 a pipe that
// it closes when it is ready; with binary-v2:// it writes a byte there first,
// so that its death is not taken for readiness. Its environment is
// CONTAINER_ID and CONTAINER_NAMESPACE alone, its arguments the URI's query.
type logger struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// startLogger starts the program of a URI and waits until it is ready. The
// outputs are the process's own ends of the pipes, except that a terminal's
// output is copied to the first.
func startLogger(ctx context.Context, uri *url.URL, namespace, id string, terminal bool) (_ *logger, outs [2]*output, err error) {
	args, err := loggerArgs(uri)
	if err != nil {
		return nil, outs, err
	}
	var theirs []*os.File
	defer func() { closeAll(theirs...) }()
	for i := range outs {
		r, w, err := loggerPipe(terminal)
		if err != nil {
			return nil, outs, err
		}
		theirs = append(theirs, r)
		outs[i] = &output{w: w, direct: !terminal}
	}
	if terminal {
		outs[1].w.Close()
		outs[1] = nil
	}
	ready, w, err := os.Pipe()
	if err != nil {
		return nil, outs, fmt.Errorf("pipe: %w", err)
	}
	defer ready.Close()
	theirs = append(theirs, w)

	cmd := exec.Command(uri.Path, args...)
	cmd.Env = []string{"CONTAINER_ID=" + id, "CONTAINER_NAMESPACE=" + namespace}
	cmd.ExtraFiles = theirs
	if err := cmd.Start(); err != nil {
		return nil, outs, fmt.Errorf("start the logging program: %w", err)
	}
	l := &logger{cmd: cmd, exited: make(chan struct{})}
	go func() {
		// How it ends is its own affair.
		_ = cmd.Wait()
		close(l.exited)
	}()
	closeAll(theirs...)
	theirs = nil
	if err := awaitReady(ctx, ready, uri.Scheme == "binary-v2"); err != nil {
		l.stop()
		return nil, outs, fmt.Errorf("logging program %s: %w", uri.Path, err)
	}
	return l, outs, nil
}

// loggerPipe makes a pipe to a logging program. Its writing end does not block
// if the shim itself writes to it; the process's own end does.
func loggerPipe(shimWrites bool) (r, w *os.File, err error) {
	if shimWrites {
		return pipe(owner{})
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// awaitReady reads the byte or the end of the pipe that tells readiness.
func awaitReady(ctx context.Context, ready *os.File, wantByte bool) error {
	ctx, cancel := context.WithTimeout(ctx, attachBudget)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Now()) })
	defer stop()
	n, err := ready.Read(make([]byte, 1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("has not said that it is ready: %w", ctx.Err())
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("has not said that it is ready: %w", err)
	case n == 0 && wantByte:
		return errors.New("has ended without saying that it is ready")
	}
	return nil
}

// loggerArgs are the query of a URI as arguments, in its order: each key and
// its value.
func loggerArgs(uri *url.URL) ([]string, error) {
	var args []string
	for pair := range strings.SplitSeq(uri.RawQuery, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		for _, part := range []string{key, value} {
			arg, err := url.QueryUnescape(part)
			if err != nil {
				return nil, invalid("logging URI %q: %v", uri, err)
			}
			args = append(args, arg)
		}
	}
	return args, nil
}

// wait blocks until the program has ended.
func (l *logger) wait() { <-l.exited }

// stop has the program end, at the latest after loggerStopBudget.
func (l *logger) stop() {
	_ = l.cmd.Process.Signal(unix.SIGTERM)
	go func() {
		select {
		case <-l.exited:
		case <-time.After(loggerStopBudget):
			_ = l.cmd.Process.Kill()
		}
	}()
}
