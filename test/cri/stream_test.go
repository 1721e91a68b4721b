package cri

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
)

// TestExecSync runs commands to their end: streams, exit codes, a program that
// is missing, and one that takes longer than it may.
func TestExecSync(t *testing.T) {
	s := begin(t)
	c := s.run(s.pod(), "main", idle)
	r, err := c.Exec(s.ctx, 0, "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
	s.must(err)
	want(t, "result", r, kubelet.ExecResult{Stdout: "out\n", Stderr: "err\n", Code: 7})
	if _, err := c.Exec(s.ctx, 0, "/no/such/program"); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("exec of a missing program: %v", err)
	}
	if _, err := c.Exec(s.ctx, 1, "/bin/sleep", "100000"); err == nil || !strings.Contains(err.Error(), "DeadlineExceeded") {
		t.Errorf("exec beyond its time: %v", err)
	}
	want(t, "processes left", s.shell(c, "ps -o args | grep -c '[s]leep' || true"), "0")
	const size = 1 << 20
	r, err = c.Exec(s.ctx, 0, "/payload", "write", fmt.Sprint(size), fmt.Sprint(size))
	s.must(err)
	want(t, "bytes of stdout and stderr", fmt.Sprint(len(r.Stdout), len(r.Stderr)), fmt.Sprint(size, size))
}

// TestExec talks to a command by its streams to its end and its exit code.
func TestExec(t *testing.T) {
	s := begin(t)
	c := s.run(s.pod(), "main", idle)
	e, err := c.StartExec(s.ctx, false, "/bin/sh", "-c", "cat; echo done >&2; exit 4")
	s.must(err)
	defer e.Close()
	_, err = io.WriteString(e.Stdin, "one line\n")
	s.must(err)
	line, err := bufio.NewReader(e.Stdout).ReadString('\n')
	s.must(err)
	want(t, "echo", line, "one line\n")
	s.must(e.Stdin.Close())
	errors, err := io.ReadAll(e.Stderr)
	s.must(err)
	want(t, "stderr", string(errors), "done\n")
	code, err := e.Wait()
	s.must(err)
	want(t, "exit code", code, 4)
}

// awaitLine reads to the line, a part of which is wanted.
func (s *scene) awaitLine(from *bufio.Scanner, part string) {
	s.t.Helper()
	for from.Scan() {
		if strings.Contains(from.Text(), part) {
			return
		}
	}
	s.t.Fatalf("no line with %q: %v", part, from.Err())
}

// TestExecTerminal has a terminal that is resized.
func TestExecTerminal(t *testing.T) {
	s := begin(t)
	c := s.run(s.pod(), "main", idle)
	e, err := c.StartExec(s.ctx, true, "/payload", "winsize")
	s.must(err)
	defer e.Close()
	lines := bufio.NewScanner(e.Stdout)
	s.awaitLine(lines, "size ")
	s.must(e.Resize(123, 45))
	s.awaitLine(lines, "size 45 123")
	_, err = io.WriteString(e.Stdin, "end\n")
	s.must(err)
	io.Copy(io.Discard, e.Stdout)
	code, err := e.Wait()
	s.must(err)
	want(t, "exit code", code, 0)
}

// TestAttach attaches to a container's own process, which echoes, twice: the
// second client finds it as the first has left it.
func TestAttach(t *testing.T) {
	s := begin(t)
	c := s.run(s.pod(), "main", []string{"/bin/cat"},
		kubelet.WithConfig(func(c *runtimeapi.ContainerConfig) { c.Stdin = true }))
	for _, text := range []string{"first\n", "second\n"} {
		a, err := c.Attach(s.ctx, true)
		s.must(err)
		_, err = io.WriteString(a.Stdin, text)
		s.must(err)
		line, err := bufio.NewReader(a.Stdout).ReadString('\n')
		s.must(err)
		want(t, "echo", line, text)
		a.Close()
	}
	s.must(c.AwaitLog("second\n"))
	want(t, "log", s.log(c, "stdout"), "first\nsecond\n")
}

// TestAttachOnce closes the input of a container that has it once: it reads
// the end.
func TestAttachOnce(t *testing.T) {
	s := begin(t)
	c := s.run(s.pod(), "main", []string{"/payload", "cat"}, kubelet.WithConfig(func(c *runtimeapi.ContainerConfig) {
		c.Stdin, c.StdinOnce = true, true
	}))
	a, err := c.Attach(s.ctx, true)
	s.must(err)
	defer a.Close()
	_, err = io.WriteString(a.Stdin, "text\n")
	s.must(err)
	s.must(a.Stdin.Close())
	want(t, "exit code", s.exited(c).ExitCode, 0)
	s.must(c.AwaitLog("EOF after 5\n"))
}

// TestTerminal attaches to a container with a terminal.
func TestTerminal(t *testing.T) {
	s := begin(t)
	c := s.run(s.pod(), "main", []string{"/bin/sh"}, kubelet.WithConfig(func(c *runtimeapi.ContainerConfig) {
		c.Stdin, c.Tty = true, true
	}))
	a, err := c.Attach(s.ctx, true)
	s.must(err)
	defer a.Close()
	s.must(a.Resize(80, 25))
	_, err = io.WriteString(a.Stdin, "test -t 0 && echo ter''minal\n")
	s.must(err)
	lines := bufio.NewScanner(a.Stdout)
	s.awaitLine(lines, "terminal")
	_, err = io.WriteString(a.Stdin, "stty size; exit 5\n")
	s.must(err)
	s.awaitLine(lines, "25 80")
	want(t, "exit code", s.exited(c).ExitCode, 5)
}
