package external

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/task"
)

// What the shim changes arrives; what it does not know stays.
func TestAmend(t *testing.T) {
	const full = `{"ociVersion":"1.0.0","of-tomorrow":{"a":[1,2]},"vm":{"kernel":{"path":"/k"}},"process":{"terminal":true,"args":["x"],"cwd":"/","new":1},"root":{"path":"rootfs","new":2},"linux":{"resources":{"memory":{"limit":9223372036854775807,"new":18446744073709551615},"cpu":{"cpus":"0-3","mems":"0"}}}}`
	for name, c := range map[string]struct {
		change func(*specs.Spec)
		want   string // "" if nothing is to be written
	}{
		"nothing": {func(*specs.Spec) {}, ""},
		"terminal off": {func(s *specs.Spec) { s.Process.Terminal = false },
			`{"ociVersion":"1.0.0","of-tomorrow":{"a":[1,2]},"vm":{"kernel":{"path":"/k"}},"process":{"args":["x"],"cwd":"/","new":1},"root":{"path":"rootfs","new":2},"linux":{"resources":{"memory":{"limit":9223372036854775807,"new":18446744073709551615},"cpu":{"cpus":"0-3","mems":"0"}}}}`},
		"path and placement": {func(s *specs.Spec) { s.Root.Path = "/b/rootfs"; s.Linux.Resources.CPU.Cpus = "1" },
			`{"ociVersion":"1.0.0","of-tomorrow":{"a":[1,2]},"vm":{"kernel":{"path":"/k"}},"process":{"terminal":true,"args":["x"],"cwd":"/","new":1},"root":{"path":"/b/rootfs","new":2},"linux":{"resources":{"memory":{"limit":9223372036854775807,"new":18446744073709551615},"cpu":{"cpus":"1","mems":"0"}}}}`},
		"more and less": {func(s *specs.Spec) { s.Hostname = "h"; s.Linux.Resources.CPU = nil },
			`{"ociVersion":"1.0.0","hostname":"h","of-tomorrow":{"a":[1,2]},"vm":{"kernel":{"path":"/k"}},"process":{"terminal":true,"args":["x"],"cwd":"/","new":1},"root":{"path":"rootfs","new":2},"linux":{"resources":{"memory":{"limit":9223372036854775807,"new":18446744073709551615}}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := task.ParseSpec([]byte(full))
			must(t, err)
			c.change(s)
			got, err := amend([]byte(full), s)
			must(t, err)
			if c.want == "" {
				if got != nil {
					t.Errorf("written: %s", got)
				}
				return
			}
			have, err := decode(got)
			must(t, err)
			want, err := decode([]byte(c.want))
			must(t, err)
			if !reflect.DeepEqual(have, want) {
				t.Errorf("%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestWriteSpec(t *testing.T) {
	dir := t.TempDir()
	s := &specs.Spec{Version: "1.0.0", Hostname: "new"}
	if err := writeSpec(dir, s); err == nil {
		t.Error("without a file")
	}
	path := filepath.Join(dir, specFile)
	for _, bad := range []string{"", "null", "[]", "{"} {
		must(t, os.WriteFile(path, []byte(bad), 0o600))
		if err := writeSpec(dir, s); err == nil {
			t.Errorf("%q is no spec", bad)
		}
	}
	must(t, os.WriteFile(path, []byte(`{"ociVersion":"1.0.0"}`), 0o600))
	must(t, os.Chmod(path, 0o640))
	must(t, writeSpec(dir, s))
	data, err := os.ReadFile(path)
	must(t, err)
	st, err := os.Stat(path)
	must(t, err)
	if string(data) != `{"hostname":"new","ociVersion":"1.0.0"}` || st.Mode().Perm() != 0o640 {
		t.Errorf("%s, %v", data, st.Mode())
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// A spec that has been amended reads as the one that was meant.
func FuzzAmend(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.0.0","x":1,"process":{"args":["a"],"cwd":"/"}}`), "/r", true)
	f.Add([]byte(`{"linux":{"resources":{"cpu":{"cpus":"0"}}}}`), "", false)
	f.Add([]byte(`{"Root":{"path":"a"},"root":null}`), "b", false)
	f.Fuzz(func(t *testing.T, data []byte, root string, terminal bool) {
		s, err := task.ParseSpec(data)
		if err != nil {
			return
		}
		s.Root = &specs.Root{Path: root}
		s.Process = &specs.Process{Terminal: terminal, Cwd: "/"}
		amended, err := amend(data, s)
		if err != nil || amended == nil {
			return
		}
		if _, err := decode(amended); err != nil {
			t.Fatalf("%s: %v", amended, err)
		}
	})
}
