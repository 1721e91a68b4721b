package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// URIs say where a process's standard streams go. Each is empty for nothing,
// the path of a FIFO (or of a file) that a client has made, or, for the
// outputs:
//
//	fifo:///path                a FIFO, as a plain path
//	file:///path                a file that is appended to
//	binary:///path?key=value    a logging program (logger.go)
//	binary-v2:///path?key=value one that says when it is ready
//
// The scheme of Stdout holds for both outputs. Of a terminal Stderr is unused.
type URIs struct {
	Stdin, Stdout, Stderr string
	Terminal              bool
}

// drainQuiet is for how long nothing may move before output that nobody
// reads is given up. Clients that want all of it read it before they delete a
// process (containerd's client waits for the end of its streams).
const drainQuiet = 2 * time.Second

// stdio are the shim's parts of a process's standard streams.
//
// The process never has a client's FIFO itself but a pipe or a terminal: its
// streams outlive containerd, and a security module sees pipes of the shim.
// The shim holds both ends of a client's FIFO, so that neither an absent
// reader breaks the process's pipe nor an absent writer ends its input.
type stdio struct {
	// files are the process's ends; run closes them.
	files Files

	// Set by openStdio, closed by close.
	inputs  []*os.File // the FIFO that input comes from
	outputs []*output
	logger  *logger
	flows   []flow // what run starts to copy
	console *os.File

	mu     sync.Mutex // guards what follows
	stdin  *os.File   // the shim's own writer to the input FIFO
	master *os.File   // the terminal
	closed bool

	moved   atomic.Int64 // bytes of output so far
	losing  sync.Once    // output has been lost
	flowing sync.WaitGroup
	drained chan struct{} // closed when all output has ended
}

// flow is a stream to be copied: from src until its end, then dst is closed.
type flow struct {
	src, dst *os.File
	counted  bool // it is output
	also     *os.File
}

// openStdio opens what u names and makes the process's ends of it. Nothing is
// left open if there is an error.
func openStdio(ctx context.Context, namespace, id string, u URIs, who owner) (_ *stdio, err error) {
	s := &stdio{drained: make(chan struct{})}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	outs, err := s.openOutputs(ctx, namespace, id, u)
	if err != nil {
		return nil, err
	}
	var in *os.File
	if u.Stdin != "" {
		if in, err = s.openInput(u.Stdin); err != nil {
			return nil, err
		}
	}
	if u.Terminal {
		return s, s.prepareTerminal(in, outs[0])
	}
	return s, s.preparePipes(in, outs, who)
}

// preparePipes makes a pipe for each stream, but where a logging program
// reads the process's own.
func (s *stdio) preparePipes(in *os.File, outs [2]*output, who owner) error {
	if in != nil {
		r, w, err := pipe(who)
		if err != nil {
			return err
		}
		s.files.Stdin = r
		s.flows = append(s.flows, flow{src: in, dst: w})
	}
	for i, end := range []**os.File{&s.files.Stdout, &s.files.Stderr} {
		switch o := outs[i]; {
		case o == nil:
		case o.direct:
			*end = o.w
		default:
			r, w, err := pipeOut(who)
			if err != nil {
				return err
			}
			*end = w
			s.flows = append(s.flows, flow{src: r, dst: o.w, also: o.keep, counted: true})
		}
	}
	return nil
}

// prepareTerminal makes the socket over which the engine sends the terminal;
// run learns of it there.
func (s *stdio) prepareTerminal(in *os.File, out *output) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket pair for the console: %w", err)
	}
	s.console, s.files.Console = os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console-child")
	if in != nil {
		s.flows = append(s.flows, flow{src: in})
	}
	if out != nil {
		s.flows = append(s.flows, flow{dst: out.w, also: out.keep, counted: true})
	}
	return nil
}

// run is called when the process exists: it closes the process's ends and
// starts to copy.
func (s *stdio) run() error {
	s.files.close()
	if s.console != nil {
		master, err := receiveFile(s.console)
		s.console.Close()
		if err != nil {
			return fmt.Errorf("receive the terminal from the process: %w", err)
		}
		s.mu.Lock()
		s.master = master
		s.mu.Unlock()
		for i := range s.flows {
			if f := &s.flows[i]; f.src == nil {
				f.src = master
			} else {
				f.dst = master
			}
		}
	}
	for _, f := range s.flows {
		if f.counted {
			s.flowing.Add(1)
		}
		go s.copy(f)
	}
	go func() {
		s.flowing.Wait()
		if s.logger != nil {
			s.logger.wait()
		}
		close(s.drained)
	}()
	return nil
}

// copy moves one stream until it ends or stdio is closed, then closes its
// ends, but never the terminal, which is both an end and a beginning.
func (s *stdio) copy(f flow) {
	var moved *atomic.Int64
	if f.counted {
		defer s.flowing.Done()
		moved = &s.moved
	}
	// An error means that one of the two ends is gone: the stream has ended.
	_ = move(f.dst, f.src, moved, func(err error) bool { return f.counted && s.lose(f.dst, err) })
	for _, end := range []*os.File{f.src, f.dst, f.also} {
		if end != nil && end != s.master {
			end.Close()
		}
	}
}

// lose tells once that output is lost, of a log whose disk is full or a logging
// program that has ended, and whether there may be more. The process goes on as
// if it had been written: a pipe that nobody reads would stop it, a broken one
// kill it.
func (s *stdio) lose(dst *os.File, err error) bool {
	if errors.Is(err, os.ErrClosed) {
		return false
	}
	s.losing.Do(func() { log.L.WithError(err).Warnf("output is lost: cannot write to %s", dst.Name()) })
	return true
}

// drain waits until all output of a process that has exited has reached its
// readers; it gives up when ctx ends or nothing has moved for drainQuiet.
func (s *stdio) drain(ctx context.Context) {
	tick := time.NewTicker(drainQuiet)
	defer tick.Stop()
	for before := s.moved.Load(); ; {
		select {
		case <-s.drained:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			now := s.moved.Load()
			if now == before {
				return
			}
			before = now
		}
	}
}

// closeStdin lets the process read what has been written so far and then the
// end of its input.
func (s *stdio) closeStdin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin != nil {
		s.stdin.Close()
		s.stdin = nil
	}
}

// resize sets the size of the terminal, in characters.
func (s *stdio) resize(width, height uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.master == nil {
		return nil
	}
	conn, err := s.master.SyscallConn()
	if err != nil {
		return err
	}
	size := &unix.Winsize{Col: uint16(width), Row: uint16(height)}
	var ioctl error
	err = conn.Control(func(fd uintptr) { ioctl = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
	if err == nil {
		err = ioctl
	}
	return err
}

// close lets go of everything; copying ends. It may be called more than once.
func (s *stdio) close() {
	s.closeStdin()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.files.close()
	for _, f := range s.flows {
		closeAll(f.src, f.dst, f.also)
	}
	closeAll(s.inputs...)
	for _, o := range s.outputs {
		closeAll(o.w, o.keep)
	}
	closeAll(s.master, s.console)
	if s.logger != nil {
		s.logger.stop()
	}
}

func (f *Files) close() {
	closeAll(f.Stdin, f.Stdout, f.Stderr, f.Console)
}

// closeAll closes files, of which some may be nil or closed already.
func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
