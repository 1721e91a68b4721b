package task

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestLoadSpec(t *testing.T) {
	dir := bundle(t, `{"root":{"path":"rootfs"},"process":{"args":["x"],"cwd":"/"},"linux":{},
		"mounts":[{"source":"a","type":"bind"},{"source":"b","options":["rbind"]},{"source":"/c","type":"bind"},{"source":"tmpfs","type":"tmpfs"}]}`)
	s, err := loadSpec(dir)
	must(t, err)
	if s.Root.Path != filepath.Join(dir, "rootfs") {
		t.Errorf("root %q", s.Root.Path)
	}
	for i, want := range []string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), "/c", "tmpfs"} {
		if s.Mounts[i].Source != want {
			t.Errorf("source %q, want %q", s.Mounts[i].Source, want)
		}
	}
}

func TestParseSpecIsOfLinux(t *testing.T) {
	document := map[string]any{}
	fields := reflect.TypeFor[specs.Spec]()
	for i := range fields.NumField() {
		if f := fields.Field(i); f.Type.Kind() == reflect.Pointer {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			document[name] = map[string]any{}
		}
	}
	data, err := json.Marshal(document)
	must(t, err)
	s, err := ParseSpec(data)
	must(t, err)
	for i := range fields.NumField() {
		f := fields.Field(i)
		if f.Type.Kind() != reflect.Pointer {
			continue
		}
		platform := f.Tag.Get("platform")
		want := platform == "" || strings.Contains(platform, "linux")
		if read := !reflect.ValueOf(s).Elem().Field(i).IsNil(); read != want {
			t.Errorf("%s is read: %t, want %t", f.Name, read, want)
		}
	}
}

func TestMalformedSpecs(t *testing.T) {
	good := `{"root":{"path":"r"},"process":{"args":["x"],"cwd":"/"},"linux":{}}`
	if _, err := loadSpec(bundle(t, good)); err != nil {
		t.Fatal(err)
	}
	for spec, words := range map[string]string{
		"":                                    "container spec",
		"null":                                "root.path",
		"[]":                                  "container spec",
		"{":                                   "container spec",
		"{}":                                  "root.path",
		good + "x":                            "container spec",
		strings.Replace(good, `"r"`, `""`, 1): "root.path",
		strings.Replace(good, `{"path":"r"}`, `null`, 1):                                  "root.path",
		strings.Replace(good, `,"linux":{}`, ``, 1):                                       "linux must be set",
		strings.Replace(good, `"cwd":"/"`, `"cwd":"x"`, 1):                                `"x" is not an absolute path`,
		strings.Replace(good, `,"cwd":"/"`, ``, 1):                                        "process.cwd",
		strings.Replace(good, `["x"]`, `[]`, 1):                                           "process.args",
		strings.Replace(good, `["x"]`, `[1]`, 1):                                          "container spec",
		strings.Replace(good, `"linux":{}`, `"linux":NaN`, 1):                             "container spec",
		strings.Replace(good, `"linux":{}`, `"linux":{"uidMappings":[{"hostID":-1}]}`, 1): "container spec",
		`{"root":` + strings.Repeat(`[`, 20000):                                           "container spec",
	} {
		_, err := loadSpec(bundle(t, spec))
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), words) {
			t.Errorf("%.80q: %v, want %q", spec, err, words)
		}
	}
	huge := bundle(t, "{}")
	must(t, os.Truncate(filepath.Join(huge, "config.json"), maxSpecSize+1))
	if _, err := loadSpec(huge); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
	if _, err := loadSpec(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	odd := t.TempDir()
	makeFIFO(t, filepath.Join(odd, "config.json"))
	if _, err := loadSpec(odd); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a FIFO as config.json: %v", err)
	}
	if _, err := readFile("/proc", maxSpecSize); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a directory without a size: %v", err)
	}
}

func TestAttachOnHost(t *testing.T) {
	for linux, onHost := range map[string]bool{
		`"linux":{"namespaces":[{"type":"mount"}]}`:                               false,
		`"linux":{"namespaces":[{"type":"mount"}],"rootfsPropagation":"private"}`: false,
		`"linux":{"namespaces":[{"type":"mount"}],"rootfsPropagation":"rslave"}`:  false,
		`"linux":{"namespaces":[{"type":"mount"}],"rootfsPropagation":"rshared"}`: true,
		`"linux":{"namespaces":[{"type":"mount","path":"/proc/1/ns/mnt"}]}`:       true,
		`"linux":{}`: true,
		`"hooks":{"prestart":[{"path":"/x"}]},"linux":{"namespaces":[{"type":"mount"}]}`:      true,
		`"hooks":{"createRuntime":[{"path":"/x"}]},"linux":{"namespaces":[{"type":"mount"}]}`: true,
		`"hooks":{"poststop":[{"path":"/x"}]},"linux":{"namespaces":[{"type":"mount"}]}`:      false,
	} {
		s := new(specs.Spec)
		must(t, json.Unmarshal([]byte(`{`+linux+`}`), s))
		if why := attachOnHost(s); (why != "") != onHost {
			t.Errorf("%s: %q", linux, why)
		}
	}
}

// FuzzSpec: whatever a config.json holds, reading it ends in an error or in
// answers.
func FuzzSpec(f *testing.F) {
	f.Add(ownPIDs)
	f.Add(sharedPIDs)
	f.Add(`{"root":{"path":"../../x"},"process":{"args":["x"],"cwd":"/"},"linux":{"uidMappings":[{}],"namespaces":[{}]},"hooks":{"prestart":[{}]},"mounts":[{},{"type":"bind","source":"\u0000"}]}`)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, spec string) {
		must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(spec), 0o600))
		s, err := loadSpec(dir)
		if err != nil {
			return
		}
		if !filepath.IsAbs(s.Root.Path) {
			t.Errorf("root %q", s.Root.Path)
		}
		_, _, _ = attachOnHost(s), hostIDs(s), sharesPIDNamespace(s)
		_, _, _ = userNSPath(s), Options{}.systemdCgroup(s), Options{}.owner(s)
	})
}
