package task

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestOutputIsComplete(t *testing.T) {
	const size = 8<<20 + 12345
	for _, scheme := range []string{"", "fifo://"} {
		noLeak(t)
		paths := fifos(t, "out", "err")
		out, err := readAll(paths[0]), readAll(paths[1])
		s := open(t, URIs{Stdout: scheme + paths[0], Stderr: scheme + paths[1]})
		stdout, stderr := dup(t, s.files.Stdout), dup(t, s.files.Stderr)
		must(t, s.run())
		data := randomBytes(size)
		for _, f := range []*os.File{stdout, stderr} {
			go func() {
				defer f.Close()
				_, _ = f.Write(data)
			}()
		}
		gotOut, gotErr := <-out, <-err
		if !bytes.Equal(gotOut, data) || !bytes.Equal(gotErr, data) {
			t.Errorf("%d and %d bytes of %d, or others", len(gotOut), len(gotErr), size)
		}
		drain(t, s)
		s.close()
		s.close()
	}
}

func TestDrainWaitsForSlowReader(t *testing.T) {
	noLeak(t)
	s, reader := openRead(t, URIs{Stdout: fifos(t, "out")[0]})
	stdout := dup(t, s.files.Stdout)
	must(t, s.run())
	const chunk, chunks = 64 << 10, 6
	go func() { defer stdout.Close(); _, _ = stdout.Write(make([]byte, chunk*chunks)) }()
	read := make(chan int)
	go func() {
		n := 0
		for range chunks {
			time.Sleep(drainQuiet / 3)
			m, _ := io.ReadFull(reader, make([]byte, chunk))
			n += m
		}
		read <- n
	}()
	drain(t, s)
	s.close()
	if n := <-read; n != chunk*chunks {
		t.Errorf("%d bytes of %d", n, chunk*chunks)
	}
}

func TestDrainGivesUp(t *testing.T) {
	noLeak(t)
	s, _ := openRead(t, URIs{Stdout: fifos(t, "out")[0]})
	stdout := dup(t, s.files.Stdout)
	must(t, s.run())
	written := make(chan error)
	go func() { _, err := stdout.Write(make([]byte, 8<<20)); written <- err }()
	before := time.Now()
	s.drain(t.Context())
	if took := time.Since(before); took < drainQuiet {
		t.Errorf("gave up after %s", took)
	}
	s.close()
	if err := <-written; !errors.Is(err, unix.EPIPE) {
		t.Errorf("the process's write: %v", err)
	}
	stdout.Close()
}

func TestDrainWithStreamsHeld(t *testing.T) {
	noLeak(t)
	path := fifos(t, "out")[0]
	out := readAll(path)
	s := open(t, URIs{Stdout: path})
	stdout := dup(t, s.files.Stdout)
	must(t, s.run())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	s.drain(ctx)
	s.close()
	<-out
	select { // copying ends although the stream has not
	case <-s.drained:
	case <-time.After(time.Minute):
		t.Error("still copying")
	}
	stdout.Close()
}

func TestNobodyReads(t *testing.T) {
	path := fifos(t, "out")[0]
	synctest.Test(t, func(t *testing.T) {
		before := time.Now()
		if _, err := openFIFOWriter(t.Context(), path); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), path) {
			t.Error(err)
		}
		if took := time.Since(before); took != attachBudget {
			t.Errorf("gave up after %s", took)
		}
	})
}

func TestReaderComesBack(t *testing.T) {
	noLeak(t)
	path := fifos(t, "out")[0]
	opened := make(chan *os.File)
	openOne := func() { f, _ := os.Open(path); opened <- f }
	go openOne()
	s := open(t, URIs{Stdout: path})
	first := <-opened
	stdout := dup(t, s.files.Stdout)
	must(t, s.run())
	expect := func(f *os.File, text string) {
		t.Helper()
		_, err := stdout.WriteString(text)
		must(t, err)
		got := make([]byte, len(text))
		_, err = io.ReadFull(f, got)
		must(t, err)
		if string(got) != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
	expect(first, "one")
	first.Close()
	_, err := stdout.WriteString("two") // nobody is there
	must(t, err)
	eventually(t, "the output has been passed on", func() bool { return s.moved.Load() == int64(len("one"+"two")) })
	go openOne()
	second := <-opened
	got := make([]byte, 3)
	_, err = io.ReadFull(second, got)
	must(t, err)
	if string(got) != "two" {
		t.Errorf("%q", got)
	}
	stdout.Close()
	drain(t, s)
	second.Close()
	s.close()
}
