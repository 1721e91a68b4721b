package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/pkg/cio"
)

// named are streams that the client only names.
type named cio.Config

func (n named) Config() cio.Config { return cio.Config(n) }
func (named) Cancel()              {}
func (named) Wait()                {}
func (named) Close() error         { return nil }

// withNames has the process's streams be what n names.
func withNames(n cio.Config) option {
	return func(c *settings) {
		c.terminal = n.Terminal
		c.creator = func(string) (cio.IO, error) { return named(n), nil }
		if n.Terminal {
			withTerminal()(c)
		}
	}
}

// TestBadStreams names streams that cannot be, of inits and of execs.
func TestBadStreams(t *testing.T) {
	s := begin(t)
	v := s.victim()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	s.must(os.WriteFile(at("file"), nil, 0o600))
	s.must(os.WriteFile(at("ends"), []byte("#!/bin/sh\nexit 3\n"), 0o700))
	listener, err := net.Listen("unix", at("socket"))
	s.must(err)
	defer listener.Close()
	execs := 0
	for _, c := range []struct {
		name    string
		streams cio.Config
		words   string
		ours    bool // other shims do not refuse it
	}{
		{name: "missing input", streams: cio.Config{Stdin: at("none")}, words: "open the input: open FIFO " + at("none") + ": no such file", ours: true},
		{name: "directory as input", streams: cio.Config{Stdin: dir}, words: "is a directory", ours: true},
		{name: "socket as input", streams: cio.Config{Stdin: at("socket")}, words: "no such device or address", ours: true},
		{name: "NUL in the input's name", streams: cio.Config{Stdin: "/a\x00b"}, words: "invalid argument"},
		{name: "missing output", streams: cio.Config{Stdout: at("none")}, words: at("none") + ": no such file", ours: true},
		{name: "directory as output", streams: cio.Config{Stdout: dir}, words: "is a directory", ours: true},
		{name: "socket as output", streams: cio.Config{Stdout: at("socket")}, words: "no such device or address", ours: true},
		{name: "unknown scheme", streams: cio.Config{Stdout: "bogus:///x"}, words: "unknown STDIO scheme bogus"},
		{name: "no URI", streams: cio.Config{Stdout: "%zz"}, words: "invalid URL escape", ours: true},
		{name: "directory as log", streams: cio.Config{Stdout: "file://" + dir}, words: "is a directory"},
		{name: "log below a file", streams: cio.Config{Stdout: "file://" + at("file") + "/x"}, words: "not a directory"},
		{name: "missing logger", streams: cio.Config{Stdout: "binary:///no/such"}, words: "/no/such: no such file or directory"},
		{name: "logger not allowed", streams: cio.Config{Stdout: "binary://" + at("file")}, words: "permission denied"},
		{name: "logger that is never ready", streams: cio.Config{Stdout: "binary-v2://" + at("ends")}, words: "has ended without saying that it is ready", ours: true},
	} {
		for _, c.streams.Terminal = range []bool{false, true} {
			streams := c.streams
			s.sub(t, fmt.Sprintf("%s, terminal %t", c.name, streams.Terminal), func() {
				if c.ours && !ours() {
					skip(s.t, "the shim does what is asked")
				}
				v.refused(v.attempt([]string{"/bin/true"}, withNames(streams)), c.words)
				execs++
				p, err := v.tryExec(fmt.Sprint("exec-", execs), []string{"/bin/true"}, withNames(streams))
				if err == nil {
					err = p.Start(s.ctx)
					p.delete()
				}
				v.refused(err, c.words)
			})
		}
	}
	v.stop()
}

// TestLostOutput has processes write much to where nothing can be written:
// they end as if it had been.
func TestLostOutput(t *testing.T) {
	if !ours() {
		skip(t, "the runc shim's processes wait, or are killed by SIGPIPE")
	}
	s := begin(t)
	v := s.victim()
	args := []string{"/payload", "write", fmt.Sprint(flood), fmt.Sprint(flood)}
	for name, streams := range map[string]cio.Config{
		"full disk":           {Stdout: "file:///dev/full"},
		"full disk, terminal": {Stdout: "file:///dev/full", Terminal: true},
		"full device":         {Stdout: "/dev/full", Stderr: "/dev/full"},
	} {
		s.sub(t, name, func() {
			c := s.run(args, withNames(streams), v.beside())
			want(s.t, "exit status", c.finish(), 0)
			p := v.exec("exec", args, withNames(streams))
			want(s.t, "exit status of an exec", p.status(), 0)
			p.delete()
			v.unharmed()
		})
	}
	v.stop()
}
