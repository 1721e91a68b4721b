package external

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runc "github.com/containerd/go-runc"
)

func TestInWords(t *testing.T) {
	failed := &runc.ExitError{Status: 1}
	for _, c := range []struct{ log, want string }{
		{`{"level":"error","msg":"runc create failed: no","time":"x"}`, "runc create failed: no"},
		{`{"msg":"first","level":"error"}` + "\n" + `{"msg":"last","level":"error"}` + "\n", "last"},
		{`{"msg":"bad","level":"error"}` + "\n" + `{"msg":"afterwards","level":"warning"}`, "bad"},
		{`{"timestamp":"x","level":"ERROR","fields":{"message":"youki's"},"target":"y"}`, "youki's"},
		{`{"msg":"","level":"error"}`, "exit status 1"},
		{`{"msg":"careful","level":"warning"}`, "exit status 1"},
		{"time=\"x\" level=error msg=text\n", "exit status 1"},
		{strings.Repeat("x", 2*maxLogTail) + "\n" + `{"msg":"late","level":"error"}`, "late"},
		{"", "exit status 1"},
	} {
		path := filepath.Join(t.TempDir(), logFile)
		must(t, os.WriteFile(path, []byte(c.log), 0o600))
		err := inWords(failed, path)
		if err.Error() != c.want || !errors.Is(err, failed) {
			t.Errorf("%.80q: %v, want %q", c.log, err, c.want)
		}
	}
	if err := inWords(failed, "/nonexistent"); err != error(failed) {
		t.Errorf("without a log: %v", err)
	}
	if err := inWords(nil, "/nonexistent"); err != nil {
		t.Errorf("without an error: %v", err)
	}
}

// No log, however broken, gives more than a line of it.
func FuzzLastError(f *testing.F) {
	f.Add([]byte(`{"msg":"bad","level":"error"}` + "\n"))
	f.Add([]byte(`{"level":"ERROR","fields":{"message":"bad"}}`))
	f.Add([]byte("{\n}"))
	f.Fuzz(func(t *testing.T, log []byte) {
		if words := lastError(bytes.NewReader(log)); words != strings.TrimSpace(words) {
			t.Errorf("%q", words)
		}
	})
}
