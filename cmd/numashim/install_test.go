package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// only fails unless dir holds the shim and nothing else.
func only(t *testing.T, dir, content string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("%s holds %v", dir, entries)
	}
	data, err := os.ReadFile(filepath.Join(dir, shimName))
	if err != nil || string(data) != content {
		t.Errorf("installed %q, %v", data, err)
	}
	if st, err := os.Stat(filepath.Join(dir, shimName)); err != nil || st.Mode().Perm() != binaryMode {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestInstall(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "shim"), filepath.Join(t.TempDir(), "opt", "bin")
	path := filepath.Join(to, shimName)
	do := func() string {
		t.Helper()
		var out strings.Builder
		if err := run(context.Background(), []string{"install", "-from", from, "-to", to}, &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	write(t, from, "one", 0o600)
	if got := do(); got != "installed "+path+"\n" {
		t.Errorf("said %q", got)
	}
	only(t, to, "one")
	if got := do(); !strings.Contains(got, "up to date") {
		t.Errorf("said %q", got)
	}

	// A shim that runs keeps its file.
	running, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	write(t, from, "two", 0o600)
	do()
	only(t, to, "two")
	if data, err := io.ReadAll(running); err != nil || string(data) != "one" {
		t.Errorf("the old file holds %q, %v", data, err)
	}

	// A link is replaced, not followed.
	other := filepath.Join(t.TempDir(), "other")
	write(t, other, "two", 0o755)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, path); err != nil {
		t.Fatal(err)
	}
	do()
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestInstallLeavesNothingOnFailure(t *testing.T) {
	to := t.TempDir()
	from := filepath.Join(t.TempDir(), "shim")
	write(t, from, "one", 0o600)
	if err := os.Mkdir(filepath.Join(to, shimName), 0o755); err != nil {
		t.Fatal(err)
	}
	err := run(context.Background(), []string{"install", "-from", from, "-to", to}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "it is a directory") {
		t.Errorf("error %v", err)
	}
	if entries, _ := os.ReadDir(to); len(entries) != 1 {
		t.Errorf("left %v", entries)
	}
	if err := run(context.Background(), []string{"install", "-from", from + "x", "-to", to}, io.Discard); err == nil {
		t.Error("no file to install: no error")
	}
}

func TestUsage(t *testing.T) {
	for _, step := range []struct {
		args []string
		want string
	}{
		{nil, ""},
		{[]string{"frobnicate"}, `unknown command "frobnicate"`},
		{[]string{"install", "extra"}, `install: unexpected argument "extra"`},
		{[]string{"list", "-x"}, "list: flag provided but not defined: -x"},
		{[]string{"ready", "-every", "soon"}, `ready: invalid value "soon" for flag -every`},
		{[]string{"ready", "-every", "-1s"}, "ready: -every -1s"},
	} {
		var out strings.Builder
		err := run(context.Background(), step.args, &out)
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), step.want) || out.String() != "" {
			t.Errorf("%q: error %v; printed %q", step.args, err, out.String())
		}
	}
	for _, args := range [][]string{{"help"}, {"-h"}, {"--help"}, {"install", "-h"}, {"list", "--help"}} {
		var out strings.Builder
		if err := run(context.Background(), args, &out); err != nil || !strings.Contains(out.String(), "numashim ") {
			t.Errorf("%q: printed %q, %v", args, out.String(), err)
		}
	}
}
