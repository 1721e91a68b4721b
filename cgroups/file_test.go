package cgroups

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var kept [][]byte
	for _, size := range []int{0, 1, 4095, 4096, 4097, 20000} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := readFile(path)
		if err != nil || !bytes.Equal(text, want) {
			t.Errorf("%d bytes: read %d, %v", size, len(text), err)
		}
		kept = append(kept, text)
	}
	// What was read is the caller's, and no larger than it must be.
	if text := kept[1]; text[0] != 1 || cap(text) > 64 {
		t.Errorf("read %v, with room for %d", text, cap(text))
	}
}
