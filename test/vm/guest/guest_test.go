package guest

import (
	"bytes"
	"io"
	"testing"
)

// FuzzFrame holds that a frame is read as it was written, and that one cut
// short is never taken for a whole one.
func FuzzFrame(f *testing.F) {
	f.Add(byte(Output), []byte("text\n"), uint16(1))
	f.Add(byte(Exited), []byte{}, uint16(0))
	f.Add(byte(0), bytes.Repeat([]byte{0xff}, MaxPayload), uint16(300))
	f.Fuzz(func(t *testing.T, kind byte, payload []byte, cut uint16) {
		if len(payload) > MaxPayload {
			payload = payload[:MaxPayload]
		}
		var b bytes.Buffer
		if err := WriteFrame(&b, Kind(kind), payload); err != nil {
			t.Fatal(err)
		}
		whole := b.Bytes()
		gotKind, got, err := ReadFrame(bytes.NewReader(whole))
		if err != nil || gotKind != Kind(kind) || !bytes.Equal(got, payload) {
			t.Fatalf("read %v %q, error %v; wrote %v %q", gotKind, got, err, kind, payload)
		}
		short := whole[:int(cut)%len(whole)]
		want := io.ErrUnexpectedEOF
		if len(short) == 0 {
			want = io.EOF
		}
		if _, _, err := ReadFrame(bytes.NewReader(short)); err != want {
			t.Fatalf("read %d of %d bytes: %v, want %v", len(short), len(whole), err, want)
		}
	})
}

func TestWriteFrameTooLong(t *testing.T) {
	var b bytes.Buffer
	if err := WriteFrame(&b, Output, make([]byte, MaxPayload+1)); err == nil || b.Len() != 0 {
		t.Fatalf("error %v, %d bytes written", err, b.Len())
	}
}
