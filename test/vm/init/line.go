package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/test/vm/guest"
)

// line is the serial line to the host.
type line struct {
	file *os.File
}

// openLine opens the serial line such that every byte arrives unchanged.
func openLine() (*line, error) {
	f, err := os.OpenFile(guest.Line, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	termios, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err == nil {
		termios.Oflag &^= unix.OPOST
		err = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, termios)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make %s raw: %w", guest.Line, err)
	}
	return &line{f}, nil
}

// say sends one frame and waits until the host has it, see tcdrain(3).
func (l *line) say(kind guest.Kind, payload string) error {
	if err := guest.WriteFrame(l.file, kind, []byte(payload)); err != nil {
		return fmt.Errorf("send to the host: %w", err)
	}
	if err := unix.IoctlSetInt(int(l.file.Fd()), unix.TCSBRK, 1); err != nil {
		return fmt.Errorf("drain %s: %w", guest.Line, err)
	}
	return nil
}

// Write sends the command's output.
func (l *line) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(len(p), n+guest.MaxPayload)]
		if err := guest.WriteFrame(l.file, guest.Output, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}
