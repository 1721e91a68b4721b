package guest

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Paths in the guest's root.
const (
	SpecPath = "/spec.json" // a Spec, written by the host
	OutDir   = "/out"       // copied back to the host after power-off
)

// Paths in the initramfs.
const (
	ModuleDir   = "/modules"       // kernel modules, decompressed
	ModuleOrder = "/modules/order" // their file names, one per line, dependencies first
)

// Devices. The kernel's console is the first serial line, /dev/ttyS0.
const (
	Line = "/dev/ttyS1" // frames from init to the host
	Disk = "/dev/vda"   // the root filesystem
)

// Spec is what init runs.
type Spec struct {
	Command  []string
	Env      []string // added to PATH, HOME and TERM
	Dir      string   // working directory; "" is /
	CgroupV1 bool     // v1 controllers and an empty unified hierarchy, in systemd's hybrid layout
}

// Kind says what a frame's payload is.
type Kind byte

// Frames arrive in this order: Started, any number of Output, Exited; or
// Failed in place of what is missing.
const (
	Started Kind = 's' // seconds since the kernel started, as in /proc/uptime
	Output  Kind = 'o' // of the command, standard output and error as they came
	Exited  Kind = 'x' // the command's exit status in decimal, 128+n if signal n ended it
	Failed  Kind = 'f' // why init could not run the command
)

// MaxPayload is the largest payload of a frame, in bytes.
const MaxPayload = 1<<16 - 1

// WriteFrame writes the kind, the payload's length in two bytes, big-endian,
// and the payload, in one Write.
func WriteFrame(w io.Writer, kind Kind, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("frame of %d bytes: the most is %d", len(payload), MaxPayload)
	}
	b := binary.BigEndian.AppendUint16([]byte{byte(kind)}, uint16(len(payload)))
	_, err := w.Write(append(b, payload...))
	return err
}

// ReadFrame reads one frame. At the end of input it returns io.EOF, within a
// frame io.ErrUnexpectedEOF.
func ReadFrame(r io.Reader) (Kind, []byte, error) {
	var header [3]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	payload := make([]byte, binary.BigEndian.Uint16(header[1:]))
	if _, err := io.ReadFull(r, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Kind(header[0]), payload, nil
}
