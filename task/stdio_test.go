package task

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/sys/unix"
)

func makeFIFO(t testing.TB, path string) {
	t.Helper()
	must(t, unix.Mkfifo(path, 0o600))
}

// fifos makes FIFOs in a directory and tells their paths.
func fifos(t testing.TB, names ...string) []string {
	t.Helper()
	dir := t.TempDir()
	for i, name := range names {
		names[i] = filepath.Join(dir, name)
		makeFIFO(t, names[i])
	}
	return names
}

// dup is a process's own descriptor of a stream.
func dup(t testing.TB, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	return os.NewFile(uintptr(fd), "dup of "+f.Name())
}

// readAll reads a stream as containerd's client does: it opens the FIFO and
// reads to the end.
func readAll(path string) <-chan []byte {
	all := make(chan []byte, 1)
	go func() {
		f, err := os.Open(path)
		if err != nil {
			all <- []byte(err.Error())
			return
		}
		defer f.Close()
		data, _ := io.ReadAll(f)
		all <- data
	}()
	return all
}

func open(t testing.TB, u URIs) *stdio {
	t.Helper()
	s, err := openStdio(t.Context(), "test", "c", u, owner{})
	must(t, err)
	return s
}

// openRead opens streams beside a client that reads standard output to the end
// of the test.
func openRead(t testing.TB, u URIs) (*stdio, *os.File) {
	t.Helper()
	opened := make(chan *os.File)
	go func() { f, _ := os.Open(u.Stdout); opened <- f }()
	s := open(t, u)
	reader := <-opened
	t.Cleanup(func() { reader.Close() })
	return s, reader
}

func randomBytes(n int) []byte {
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

func drain(t testing.TB, s *stdio) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.drain(ctx)
	select {
	case <-s.drained:
	default:
		t.Error("not drained")
	}
}

// Not a byte is lost of a process that writes much and exits at once.
// A reader that is slow but alive gets all; drain waits for it.
// A reader that has stopped to read holds nothing up for long, and nothing of
// it stays when the streams are closed.
// The same if the process's streams are held open by one that stays.
// The process's output outlives its reader: another reads on.
func TestInput(t *testing.T) {
	noLeak(t)
	path := fifos(t, "in")[0]
	s := open(t, URIs{Stdin: path})
	stdin := dup(t, s.files.Stdin)
	must(t, s.run())
	read := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		_, err := io.ReadFull(stdin, got)
		must(t, err)
		if string(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// Clients come and go; the input does not end with them.
	for _, text := range []string{"first", "second"} {
		client, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = client.WriteString(text)
		must(t, err)
		must(t, client.Close())
		read(text)
	}
	// After CloseIO it ends with the last client, and not before.
	client, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	s.closeStdin()
	s.closeStdin()
	_, err = client.WriteString("last")
	must(t, err)
	read("last")
	must(t, client.Close())
	if n, err := stdin.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d, %v, want the end", n, err)
	}
	stdin.Close()
	s.close()
}

// 8 MiB of input reach a slow process.
func TestInputIsComplete(t *testing.T) {
	noLeak(t)
	path := fifos(t, "in")[0]
	s := open(t, URIs{Stdin: path})
	stdin := dup(t, s.files.Stdin)
	must(t, s.run())
	client, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	data := randomBytes(8 << 20)
	go func() { defer client.Close(); _, _ = client.Write(data); s.closeStdin() }()
	got, err := io.ReadAll(stdin)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes, of %d, or others", len(got), len(data))
	}
	stdin.Close()
	s.close()
}

// The end of the input may be asked for before the process has been started.
func TestCloseIOBeforeStart(t *testing.T) {
	noLeak(t)
	path := fifos(t, "in")[0]
	r := newRig(t)
	r.run("c")
	got := make(chan []byte)
	r.engine.streams = func(f Files) {
		stdin := dup(t, f.Stdin)
		go func() { defer stdin.Close(); data, _ := io.ReadAll(stdin); got <- data }()
	}
	exec := execRequest("c", "e")
	exec.Stdin = path
	_, err := r.Exec(t.Context(), exec)
	must(t, err)
	_, err = r.CloseIO(t.Context(), &taskv3.CloseIORequest{ID: "c", ExecID: "e", Stdin: true})
	must(t, err)
	r.start("c", "e")
	if data := <-got; len(data) > 0 {
		t.Errorf("%q", data)
	}
	r.kill("c", "", 9)
	r.wait("c", "")
	r.delete("c", "")
}

// Streams end in files by URI and by plain path; what is there stays.
func TestOutputToFiles(t *testing.T) {
	noLeak(t)
	dir := t.TempDir()
	plain, log := filepath.Join(dir, "plain"), filepath.Join(dir, "new", "log")
	must(t, os.WriteFile(plain, []byte("old\n"), 0o600))
	for _, c := range []struct {
		u    URIs
		file string
		want []string
	}{
		{URIs{Stdout: plain}, plain, []string{"old", "out"}},
		{URIs{Stderr: plain}, plain, []string{"old", "out", "err"}},
		{URIs{Stdout: "file://" + log, Stderr: "ignored"}, log, []string{"out", "err"}},
	} {
		s := open(t, c.u)
		for f, text := range map[*os.File]string{s.files.Stdout: "out\n", s.files.Stderr: "err\n"} {
			if f != nil {
				_, err := f.WriteString(text)
				must(t, err)
			}
		}
		must(t, s.run())
		drain(t, s)
		s.close()
		data, err := os.ReadFile(c.file)
		must(t, err)
		lines := strings.Fields(string(data))
		if len(lines) != len(c.want) {
			t.Errorf("%+v: %q", c.u, lines)
		}
		for _, w := range c.want {
			if !strings.Contains(string(data), w) {
				t.Errorf("%+v: %q without %q", c.u, data, w)
			}
		}
	}
	// A FIFO where a file was named is not waited for.
	if _, err := openStdio(t.Context(), "test", "c", URIs{Stdout: "file://" + fifos(t, "f")[0]}, owner{}); !errors.Is(err, unix.ENXIO) {
		t.Error(err)
	}
}

// A process whose output cannot be written goes on: it is neither stopped by a
// full pipe nor killed by a broken one.
func TestOutputIsLost(t *testing.T) {
	noLeak(t)
	for _, u := range []URIs{{Stdout: "/dev/full"}, {Stdout: "file:///dev/full"}, {Stdout: "/dev/null", Stderr: "/dev/full"}} {
		s := open(t, u)
		var ends []*os.File
		for _, f := range []*os.File{s.files.Stdout, s.files.Stderr} {
			if f != nil {
				ends = append(ends, dup(t, f))
			}
		}
		must(t, s.run())
		for _, f := range ends {
			if _, err := f.Write(randomBytes(1 << 20)); err != nil {
				t.Errorf("%+v: the process's write: %v", u, err)
			}
			must(t, f.Close())
		}
		drain(t, s)
		s.close()
	}
}

func TestNoStreams(t *testing.T) {
	noLeak(t)
	s := open(t, URIs{})
	if s.files != (Files{}) {
		t.Errorf("%+v", s.files)
	}
	must(t, s.run())
	drain(t, s)
	must(t, s.resize(80, 24))
	s.close()
}

func TestRefusedStreams(t *testing.T) {
	noLeak(t)
	fifo := fifos(t, "out")[0]
	for _, u := range []URIs{
		{Stdout: "ttrpc+unix:///x?streaming_id=1"}, {Stdout: "http://x"}, {Stdout: "a%zz"}, {Stdout: ":"},
		{Stdout: "fifo:///nonexistent"}, {Stdout: "fifo:///dev/null", Stderr: "%zz"}, {Stdout: "file://"}, {Stdin: "/nonexistent"},
		{Stdout: "/dev/null", Stderr: "/nonexistent"}, {Stdin: fifo, Stdout: "/nonexistent", Terminal: true},
		{Stdout: "binary:///nonexistent"}, {Stdout: "binary:///x?a=%zz"}, {Stdout: "binary://"},
	} {
		if s, err := openStdio(t.Context(), "test", "c", u, owner{}); err == nil {
			s.close()
			t.Errorf("%+v accepted", u)
		}
	}
}

// The process's ends belong to the container's root and block; the shim's do
// not block.
func TestPipes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: changes the owner of pipes")
	}
	noLeak(t)
	for _, theirs := range []int{0, 1} {
		process, shim, err := newPipe(owner{uid: 1234, gid: 5678}, theirs)
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Fstat(int(process.Fd()), &st))
		if st.Uid != 1234 || st.Gid != 5678 {
			t.Errorf("owner %d:%d", st.Uid, st.Gid)
		}
		for f, blocks := range map[*os.File]bool{process: true, shim: false} {
			conn, err := f.SyscallConn()
			must(t, err)
			must(t, conn.Control(func(fd uintptr) {
				flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
				must(t, err)
				cloexec, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
				must(t, err)
				if (flags&unix.O_NONBLOCK == 0) != blocks || cloexec&unix.FD_CLOEXEC == 0 {
					t.Errorf("flags %#x, %#x", flags, cloexec)
				}
			}))
		}
		closeAll(process, shim)
	}
}
