package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"containerd-shim-numa-v1/test/rig"
)

// flood is more than every buffer between a process and its reader.
const flood = 8 << 20

// closing is a standard input that tells containerd of its end, as ctr does;
// the shim holds the FIFO open against a client that goes away.
type closing struct {
	io.Reader
	process containerd.Process
}

func (c *closing) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if err == io.EOF {
		if closeErr := c.process.CloseIO(context.Background(), containerd.WithStdinCloser); closeErr != nil {
			return n, closeErr
		}
	}
	return n, err
}

func TestStdinToItsEnd(t *testing.T) {
	s := begin(t)
	input := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	expected := fmt.Sprintf("%sEOF after %d\n", input, len(input))

	r, w := io.Pipe() // holds the input back until the process is there to be told of its end
	in := &closing{Reader: r}
	c := s.create([]string{"/payload", "cat"}, withStdin(in))
	in.process = c.task
	s.must(c.Start(s.ctx))
	w.Write(input)
	w.Close()
	want(t, "exit status", c.finish(), 0)
	want(t, "init's echo is whole", c.stdout.String() == expected, true)

	c = s.run(idle)
	r, w = io.Pipe()
	in = &closing{Reader: r}
	p := c.execCreate("cat", []string{"/payload", "cat"}, withStdin(in))
	in.process = p.Process
	s.must(p.Start(s.ctx))
	w.Write(input)
	w.Close()
	want(t, "exit status of exec", p.status(), 0)
	p.delete()
	want(t, "exec's echo is whole", p.stdout.String() == expected, true)
	c.stop()
}

// TestNotAByteIsLost has processes write much and exit at once.
func TestNotAByteIsLost(t *testing.T) {
	s := begin(t)
	args := []string{"/payload", "write", fmt.Sprint(flood), fmt.Sprint(flood)}
	check := func(name string, p *process) {
		t.Helper()
		if err := rig.CheckPattern(p.stdout.Bytes(), flood); err != nil {
			t.Errorf("stdout of %s: %v", name, err)
		}
		if err := rig.CheckPattern(p.stderr.Bytes(), flood); err != nil {
			t.Errorf("stderr of %s: %v", name, err)
		}
	}
	c := s.run(args)
	want(t, "exit status", c.finish(), 0)
	check("init", &c.process)

	c = s.run(idle)
	for i := range 3 {
		p := c.exec(fmt.Sprintf("flood-%d", i), args)
		want(t, "exit status of exec", p.status(), 0)
		p.delete()
		check(p.ID(), p)
	}
	c.stop()
}

// unread is an IO whose reader holds the FIFOs open and never reads.
type unread struct {
	fifos *cio.FIFOSet
	open  []*os.File
}

func (u *unread) Config() cio.Config { return u.fifos.Config }
func (u *unread) Cancel()            {}
func (u *unread) Wait()              {}
func (u *unread) Close() error {
	for _, f := range u.open {
		f.Close()
	}
	return u.fifos.Close()
}

func newUnread(dir string) cio.Creator {
	return func(id string) (cio.IO, error) {
		fifos, err := cio.NewFIFOSetInDir(dir, id, false)
		if err != nil {
			return nil, err
		}
		u := &unread{fifos: fifos}
		fifos.Stdin = ""
		for _, path := range []string{fifos.Stdout, fifos.Stderr} {
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				return nil, err
			}
			f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
			if err != nil {
				return nil, err
			}
			u.open = append(u.open, f)
		}
		return u, nil
	}
}

// TestUnreadOutputBlocksNothingElse fills a container's output that nobody
// reads. It must still die and be deleted.
func TestUnreadOutputBlocksNothingElse(t *testing.T) {
	s := begin(t)
	dir := t.TempDir()
	c := s.run([]string{"/payload", "write", fmt.Sprint(flood), "0"}, withIO(newUnread(dir)))
	p := c.exec("flood", []string{"/payload", "write", fmt.Sprint(flood), "0"}, withIO(newUnread(dir)))
	time.Sleep(100 * time.Millisecond) // the pipes fill in far less
	for _, blocked := range []*process{&c.process, p} {
		st, err := blocked.Status(s.ctx)
		s.must(err)
		want(t, "status of "+blocked.ID(), st.Status, containerd.Running)
	}
	s.must(p.Kill(s.ctx, syscall.SIGKILL))
	want(t, "exit status of exec", p.status(), 137)
	p.delete()
	s.must(c.Kill(s.ctx, syscall.SIGKILL))
	want(t, "exit status", c.status(), 137)
	c.remove()
}

// TestExitIsToldWhileOutputIsHeld leaves a child of an exec behind that holds
// the exec's output open.
func TestExitIsToldWhileOutputIsHeld(t *testing.T) {
	s := begin(t)
	log := filepath.Join(t.TempDir(), "log")
	c := s.run(idle)
	p := c.exec("parent", []string{"/payload", "fork", "1", "leave"}, withIO(cio.LogFile(log)))
	want(t, "exit status", p.status(), 0)
	p.delete()
	text, err := os.ReadFile(log)
	s.must(err)
	if !strings.Contains(string(text), "forked 1") {
		t.Errorf("the log holds %q", text)
	}
	c.stop()
}

func TestLogFile(t *testing.T) {
	s := begin(t)
	log := filepath.Join(t.TempDir(), "new", "container.log")
	c := s.run([]string{"/bin/sh", "-c", "echo out; echo err >&2"}, withIO(cio.LogFile(log)))
	want(t, "exit status", c.finish(), 0)
	text, err := os.ReadFile(log)
	s.must(err)
	if got := string(text); !strings.Contains(got, "out\n") || !strings.Contains(got, "err\n") {
		t.Errorf("the log holds %q", got)
	}
}

func TestLogBinary(t *testing.T) {
	s := begin(t)
	log := filepath.Join(t.TempDir(), "log")
	logger := cio.BinaryIO(s.Payload, map[string]string{"logger": log})
	c := s.run([]string{"/payload", "write", fmt.Sprint(flood), "1000"}, withIO(logger))
	want(t, "exit status", c.finish(), 0)
	for stream, n := range map[string]int{"stdout": flood, "stderr": 1000} {
		text, err := os.ReadFile(log + "." + stream)
		s.must(err)
		if err := rig.CheckPattern(text, n); err != nil {
			t.Errorf("%s by the logger: %v", stream, err)
		}
	}
}

func TestNullIO(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/payload", "fds"}, withIO(cio.NullIO), withSpec(oci.WithProcessArgs("/bin/sh", "-c", "echo lost; exit 4")))
	want(t, "exit status", c.finish(), 4)
}
