package vm

import (
	"bytes"
	"errors"
	"testing"
)

// TestCpio holds the archive against the format's definition byte by byte:
// a kernel that finds another one boots without an init.
func TestCpio(t *testing.T) {
	var b bytes.Buffer
	w := newCpio(&b)
	w.directory("d")
	w.file("d/file", 0o755, []byte("12345"))
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	const zero = "00000000"
	want := "070701" + "00000001" + "000041ED" + zero + zero + "00000001" + zero + zero + zero + zero + zero + zero + "00000002" + zero + "d\x00" +
		"070701" + "00000002" + "000081ED" + zero + zero + "00000001" + zero + "00000005" + zero + zero + zero + zero + "00000007" + zero + "d/file\x00\x00\x00\x00" +
		"12345\x00\x00\x00" +
		"070701" + "00000003" + zero + zero + zero + "00000001" + zero + zero + zero + zero + zero + zero + "0000000B" + zero + "TRAILER!!!\x00\x00\x00\x00"
	if got := b.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestCpioWriteError(t *testing.T) {
	full := errors.New("disk full")
	w := newCpio(failingWriter{full})
	w.file("large", 0o644, make([]byte, 1<<20))
	if err := w.close(); !errors.Is(err, full) {
		t.Errorf("close: %v, want %v", err, full)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
