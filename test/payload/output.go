package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// writePattern STDOUT STDERR writes that many bytes to each stream, at the
// same time, and exits at once. Each byte tells its position modulo a prime,
// so a lost, doubled or swapped piece shows.
func writePattern(args []string) (int, error) {
	stdout, err := number(args, 0, 0)
	if err != nil {
		return 0, err
	}
	stderr, err := number(args, 1, 0)
	if err != nil {
		return 0, err
	}
	var group sync.WaitGroup
	errs := make(chan error, 2)
	for _, out := range []struct {
		to    *os.File
		bytes int
	}{{os.Stdout, stdout}, {os.Stderr, stderr}} {
		group.Go(func() {
			_, err := out.to.Write(pattern(out.bytes))
			errs <- err
		})
	}
	group.Wait()
	if err := <-errs; err != nil {
		return 0, err
	}
	return 0, <-errs
}

// pattern must stay the same as rig.Pattern, which checks it.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

// echoStdin copies standard input to its end, then prints how many bytes it
// was.
func echoStdin([]string) (int, error) {
	n, err := io.Copy(os.Stdout, os.Stdin)
	if err != nil {
		return 0, err
	}
	fmt.Printf("EOF after %d\n", n)
	return 0, nil
}

// printWindowSizes prints the terminal's "rows columns" now and whenever it
// changes, until standard input says a line.
func printWindowSizes([]string) (int, error) {
	changed := make(chan os.Signal, 8)
	signal.Notify(changed, syscall.SIGWINCH)
	line := make(chan struct{})
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		close(line)
	}()
	for {
		size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
		if err != nil {
			return 0, err
		}
		fmt.Printf("size %d %d\n", size.Row, size.Col)
		select {
		case <-changed:
		case <-line:
			return 0, nil
		}
	}
}

// Descriptors that containerd's logging contract gives to a binary logger.
const (
	loggerStdout = 3
	loggerStderr = 4
	loggerReady  = 5
)

// runLogger FILE is a binary:// logger: it copies the container's streams to
// FILE.stdout and FILE.stderr and says when it is ready by closing its third
// descriptor.
func runLogger(args []string) (int, error) {
	if len(args) != 1 {
		return 0, fmt.Errorf("want one file name, have %q", args)
	}
	var group sync.WaitGroup
	errs := make(chan error, 2)
	for _, stream := range []struct {
		fd   uintptr
		name string
	}{{loggerStdout, "stdout"}, {loggerStderr, "stderr"}} {
		to, err := os.Create(args[0] + "." + stream.name)
		if err != nil {
			return 0, err
		}
		group.Go(func() {
			_, err := io.Copy(to, os.NewFile(stream.fd, stream.name))
			errs <- err
		})
	}
	if err := syscall.Close(loggerReady); err != nil {
		return 0, err
	}
	group.Wait()
	if err := <-errs; err != nil {
		return 0, err
	}
	return 0, <-errs
}
