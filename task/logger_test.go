package task

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loggerURI names this binary, playing a logging program.
func loggerURI(t testing.TB, scheme, way, file string) string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	return fmt.Sprintf("%s://%s?%s=%s&b%%20c=d%%26e&a=", scheme, self, way, url.QueryEscape(file))
}

func TestLogger(t *testing.T) {
	for _, c := range []struct{ scheme, way string }{{"binary", "v1"}, {"binary-v2", "v2"}, {"binary-v2", "v2-late"}} {
		t.Run(c.way, func(t *testing.T) {
			noLeak(t)
			file := filepath.Join(t.TempDir(), "log file")
			s := open(t, URIs{Stdout: loggerURI(t, c.scheme, c.way, file), Stderr: "ignored"})
			for f, text := range map[*os.File]string{s.files.Stdout: "to stdout", s.files.Stderr: "to stderr"} {
				_, err := f.WriteString(text)
				must(t, err)
			}
			must(t, s.run())
			drain(t, s) // waits for the program, which has read all then
			s.close()
			data, err := os.ReadFile(file)
			must(t, err)
			for _, want := range []string{"out=to stdout\n", "err=to stderr\n", "CONTAINER_ID=c", "CONTAINER_NAMESPACE=test", "args=" + c.way + "|" + file + "|b c|d&e|a|"} {
				if !strings.Contains(string(data), want) {
					t.Errorf("%q without %q", data, want)
				}
			}
			if strings.Contains(string(data), "PATH=") {
				t.Errorf("environment of the shim: %q", data)
			}
		})
	}
}

func TestLoggerOfTerminal(t *testing.T) {
	noLeak(t)
	file := filepath.Join(t.TempDir(), "log")
	s := open(t, URIs{Stdout: loggerURI(t, "binary", "v1", file), Terminal: true})
	master, process := openPTY(t)
	send(t, s.files.Console, master)
	master.Close()
	must(t, s.run())
	_, err := process.WriteString("on the terminal")
	must(t, err)
	process.Close()
	drain(t, s)
	s.close()
	data, err := os.ReadFile(file)
	must(t, err)
	if !strings.Contains(string(data), "out=on the terminal\nerr=\n") {
		t.Errorf("%q", data)
	}
}

// A program that dies is no logger if it had to say that it is ready; with
// the first version its death cannot be told from readiness.
func TestLoggerCrashes(t *testing.T) {
	noLeak(t)
	if _, err := openStdio(t.Context(), "test", "c", URIs{Stdout: loggerURI(t, "binary-v2", "crash", "x")}, owner{}); err == nil || !strings.Contains(err.Error(), "without saying") {
		t.Error(err)
	}
	s := open(t, URIs{Stdout: loggerURI(t, "binary", "crash", "x")})
	stdout := dup(t, s.files.Stdout)
	must(t, s.run())
	<-s.logger.exited
	if _, err := stdout.WriteString("x"); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write to a dead logger: %v", err)
	}
	stdout.Close()
	drain(t, s)
	s.close()
}

// A program that is never ready is not waited for longer than the client
// does, and is ended.
func TestLoggerNeverReady(t *testing.T) {
	before := time.Now()
	t.Cleanup(func() { // after noLeak's: the program is gone
		if took := time.Since(before); took >= loggerStopBudget {
			t.Errorf("not ended before it was killed, after %s", took)
		}
	})
	noLeak(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := openStdio(ctx, "test", "c", URIs{Stdout: loggerURI(t, "binary", "never", "x")}, owner{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// A program that neither reads nor ends when asked to is killed, and holds up
// neither the process's exit nor its deletion.
func TestLoggerStuck(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as a logging program may: ", loggerStopBudget)
	}
	noLeak(t)
	s := open(t, URIs{Stdout: loggerURI(t, "binary-v2", "v2-deaf", "x")})
	must(t, s.run())
	before := time.Now()
	s.drain(t.Context())
	s.close()
	if took := time.Since(before); took > drainQuiet+5*time.Second {
		t.Errorf("drained after %s", took)
	}
	<-s.logger.exited
	if took := time.Since(before); took < loggerStopBudget {
		t.Errorf("killed after %s", took)
	}
}

func TestLoggerArgs(t *testing.T) {
	for raw, want := range map[string][]string{
		"": nil, "&": nil, "a": {"a", ""}, "a=b": {"a", "b"}, "z=1&a=2&z=3": {"z", "1", "a", "2", "z", "3"},
		"a=b=c": {"a", "b=c"}, "a+b=c%2fd": {"a b", "c/d"},
	} {
		got, err := loggerArgs(&url.URL{RawQuery: raw})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v, want %q", raw, got, err, want)
		}
	}
	if got, err := loggerArgs(&url.URL{RawQuery: "a=%"}); err == nil {
		t.Errorf("%q", got)
	}
}

func FuzzLogURI(f *testing.F) {
	for _, s := range []string{"/run/fifo", "fifo:///x", "file:///var/log/x", "binary:///bin/x?a=b&c", "binary-v2://x?%zz", "a%zz", "://", "binary:x?;"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, stdout, stderr string) {
		u, err := url.Parse(stdout)
		if err != nil {
			return
		}
		if args, err := loggerArgs(u); err == nil && len(args)%2 != 0 {
			t.Errorf("%q: a key without value in %q", stdout, args)
		}
		if out, _, err := fifoPaths(u, stderr); err == nil && out != u.Path {
			t.Errorf("%q: path %q", stdout, out)
		}
	})
}
