package task

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openPTY makes a terminal: its master, and the end of a process (pty(7)).
func openPTY(t testing.TB) (master, process *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(t, err)
	process, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return os.NewFile(uintptr(fd), "/dev/ptmx"), process
}

// send sends files over a socket, as the engine does with the terminal.
func send(t testing.TB, socket *os.File, files ...*os.File) {
	t.Helper()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	must(t, unix.Sendmsg(int(socket.Fd()), []byte("/dev/ptmx"), unix.UnixRights(fds...), nil, 0))
}

// runTerminal runs a terminal. process is the process's end of it, out what the
// client reads, in the client's FIFO for input.
func runTerminal(t testing.TB) (s *stdio, process, out *os.File, in string) {
	t.Helper()
	paths := fifos(t, "in", "out")
	s, out = openRead(t, URIs{Stdin: paths[0], Stdout: paths[1], Terminal: true})
	master, process := openPTY(t)
	send(t, s.files.Console, master)
	master.Close()
	must(t, s.run())
	return s, process, out, paths[0]
}

func TestTerminal(t *testing.T) {
	noLeak(t)
	s, process, out, in := runTerminal(t)

	must(t, s.resize(132, 43))
	size, err := unix.IoctlGetWinsize(int(process.Fd()), unix.TIOCGWINSZ)
	must(t, err)
	if size.Col != 132 || size.Row != 43 {
		t.Errorf("size %+v", size)
	}
	client, err := os.OpenFile(in, os.O_WRONLY, 0)
	must(t, err)
	_, err = client.WriteString("typed\n")
	must(t, err)
	line, err := bufio.NewReader(process).ReadString('\n')
	must(t, err)
	if line != "typed\n" {
		t.Errorf("input %q", line)
	}
	// What was typed is echoed; the end of the input does not end the output.
	client.Close()
	s.closeStdin()
	reader := bufio.NewReader(out)
	for _, want := range []string{"typed\r\n", "printed\r\n"} {
		if want == "printed\r\n" {
			_, err = process.WriteString("printed\n")
			must(t, err)
		}
		if got, err := reader.ReadString('\n'); err != nil || got != want {
			t.Errorf("output %q, %v, want %q", got, err, want)
		}
	}
	// Much at the end, and then the process is gone.
	many := strings.Repeat("x", 1000) + "\n"
	go func() {
		for range 100 {
			_, _ = process.WriteString(many)
		}
		process.Close()
	}()
	total := 0
	for total < 100*(len(many)+1) {
		got, err := reader.ReadString('\n')
		total += len(got)
		if err != nil {
			t.Fatalf("after %d bytes: %v", total, err)
		}
	}
	drain(t, s)
	s.close()
	if err := s.resize(1, 1); err == nil {
		t.Error("a closed terminal was resized")
	}
}

// A terminal is closed with a process that goes on, and with much to write.
func TestTerminalClosedUnderProcess(t *testing.T) {
	noLeak(t)
	s, process, _, _ := runTerminal(t)
	ended := make(chan error)
	go func() {
		for {
			if _, err := process.WriteString("y\n"); err != nil {
				ended <- err
				return
			}
		}
	}()
	eventually(t, "output", func() bool { return s.moved.Load() > 0 })
	s.close()
	if err := <-ended; !errors.Is(err, unix.EIO) {
		t.Error(err)
	}
	process.Close()
}

// Of what is received over the socket, exactly one file is a terminal.
func TestReceiveFile(t *testing.T) {
	noLeak(t)
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	for n, ok := range map[int]bool{0: false, 1: true, 2: false} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		a, b := os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
		files := []*os.File{null, null}[:n]
		if n > 0 {
			send(t, a, files...)
		} else {
			_, err := a.WriteString("nothing")
			must(t, err)
		}
		a.Close()
		got, err := receiveFile(b)
		if (err == nil) != ok {
			t.Errorf("%d files: %v", n, err)
		}
		closeAll(got, b)
	}
}
