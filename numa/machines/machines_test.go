package machines

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text string
		want map[string]string // contents by path
	}{
		{"", nil},
		{"# nothing\n\n", nil},
		{"a/b 1", map[string]string{"a/b": "1\n"}},
		{"a", map[string]string{"a": "\n"}},
		{"a ", map[string]string{"a": "\n"}},
		{"a  two words ", map[string]string{"a": " two words \n"}},
		{`a x\ny\\n\{}`, map[string]string{"a": "x\ny\\n{}\n"}},
		{"cpu{0-1,8}/id {}", map[string]string{"cpu0/id": "0\n", "cpu1/id": "1\n", "cpu8/id": "8\n"}},
		{"cpu{4}/list {-4},{},{+4}", map[string]string{"cpu4/list": "0,4,8\n"}},
		{"c{1,2}/{a,b}_x {}", map[string]string{"c1/a_x": "1\n", "c1/b_x": "1\n", "c2/a_x": "2\n", "c2/b_x": "2\n"}},
		{"{a,b}/{1,2} {}", map[string]string{"a/1": "a\n", "a/2": "a\n", "b/1": "b\n", "b/2": "b\n"}},
	} {
		fsys, err := Parse(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		got := map[string]string{}
		for path, file := range fsys {
			got[path] = string(file.Data)
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct {
		text string
		err  error
	}{
		{"a 1\na 2", errTwice},
		{"cpu{0-3}/x\ncpu3/x", errTwice},
		{"/a", errPath},
		{"a/../b", errPath},
		{"a/", errPath},
		{" x", errPath},
		{".", errPath},
		{"a{0-1", errBrace},
		{"a{}", errBrace},
		{"a{1-0}", strconv.ErrSyntax},
		{"a{b1}", errBrace},
		{"a {}", errBrace},
		{"a{1} {", errBrace},
		{"a{1} {2}", errBrace},
		{"a{1} {+x}", strconv.ErrSyntax},
		{"a{b} {+1}", strconv.ErrSyntax},
		{`a \t`, strconv.ErrSyntax},
		{`a \`, strconv.ErrSyntax},
		{"a{0-8191}{0-8191}", errMany},
		{"a{0-8192}", strconv.ErrRange},
	} {
		fsys, err := Parse("# a comment\n" + c.text)
		if !errors.Is(err, c.err) || fsys != nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%q: %v, %v; want %v", c.text, fsys, err, c.err)
		}
	}
}

// TestMachines reads every text, which says where it comes from.
func TestMachines(t *testing.T) {
	for _, name := range Names() {
		fsys, err := Open(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if fsys["devices/system/cpu/online"] == nil {
			t.Errorf("%s has no CPU", name)
		}
		text, err := texts.ReadFile(textDir + "/" + name + suffix)
		if err != nil {
			t.Fatal(err)
		}
		comment, _, _ := strings.Cut(string(text), "\ndevices/")
		source := strings.Contains(comment, "Recorded") || strings.Contains(comment, "Written") || strings.Contains(comment, "No machine")
		if !strings.HasPrefix(comment, "# ") || !source {
			t.Errorf("%s does not say whether it was recorded: %q", name, comment)
		}
	}
	if _, err := Open("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a machine that is not there: %v", err)
	}
	if err := Expand("none", t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a machine that is not there: %v", err)
	}
}

func TestExpand(t *testing.T) {
	const name = "vm-2cpu"
	dir := filepath.Join(t.TempDir(), "sys")
	if err := Expand(name, dir); err != nil {
		t.Fatal(err)
	}
	want, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	tree := os.DirFS(dir)
	if err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(tree, path)
		got[path] = string(text)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for path, file := range want {
		if got[path] != string(file.Data) {
			t.Errorf("%s: %q, want %q", path, got[path], file.Data)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
	if err := Expand(name, dir); err == nil && os.Geteuid() != 0 {
		t.Error("expanded over itself, though the files are read-only")
	}
}

// TestCapture takes machines through a real directory to text and back.
func TestCapture(t *testing.T) {
	const enough = 2000 // files: the larger machines show nothing more
	for _, name := range Names() {
		fsys, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(fsys) > enough {
			continue
		}
		dir := t.TempDir()
		if err := Expand(name, dir); err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		if err := Capture(os.DirFS(dir), &text); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		back, err := Parse(text.String())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for path, file := range back {
			if was := fsys[path]; was == nil || string(was.Data) != string(file.Data) {
				t.Errorf("%s: %s came back as %q, was %v", name, path, file.Data, was)
			}
		}
		// Files that are not numbered are all there.
		for _, path := range slices.Sorted(maps.Keys(fsys)) {
			if slices.Contains(captured[:], path) && back[path] == nil {
				t.Errorf("%s: %s was lost", name, path)
			}
		}
	}
}

func TestCaptureContents(t *testing.T) {
	fsys := fstest.MapFS{
		"devices/system/cpu/online":               {Data: []byte("0-3,9\n")},
		"devices/system/cpu/isolated":             {Data: []byte("\n")},
		"devices/system/cpu/cpu0/cpu_capacity":    {Data: []byte("1024\n")},
		"devices/system/cpu/cpu1/cpu_capacity":    {Data: []byte("1024\n")},
		"devices/system/cpu/cpu9/cpu_capacity":    {Data: []byte("1024\n")},
		"devices/system/cpu/cpu2/cpu_capacity":    {Data: []byte("512\n")},
		"devices/system/cpu/cpufreq/cpu_capacity": {Data: []byte("1\n")},
		"devices/system/cpu/cpu0/topology/die_id": {Data: []byte(`{\}`)},
		"devices/system/node/node0/meminfo":       {Data: []byte("a\nb\nc\n")},
		"devices/system/node/node0/numastat":      {Data: []byte("x\n")},
	}
	const want = `devices/system/cpu/cpu{0-1,9}/cpu_capacity 1024
devices/system/cpu/cpu{2}/cpu_capacity 512
devices/system/cpu/cpu{0}/topology/die_id \{\\}
devices/system/cpu/isolated
devices/system/cpu/online 0-3,9
devices/system/node/node{0}/meminfo a\nb
`
	var got strings.Builder
	if err := Capture(fsys, &got); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	full := errors.New("full")
	if err := Capture(fsys, writer(func([]byte) (int, error) { return 0, full })); !errors.Is(err, full) {
		t.Errorf("to a full disk: %v", err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"# c\n\na 1\nb{0-3} {},{+4}", `x \n\\\{`, "a{0-1}/{b,c} {-1}", "a{}", "a{1", "{a}{b}{c} {}", "a{0-8191}{0-8191}",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fsys, err := Parse(text)
		if err != nil && fsys != nil {
			t.Error("files beside an error")
		}
		if len(fsys) > maxFiles {
			t.Errorf("%d files", len(fsys))
		}
		for path, file := range fsys {
			if !fs.ValidPath(path) || !strings.HasSuffix(string(file.Data), "\n") {
				t.Errorf("%q: %q", path, file.Data)
			}
		}
	})
}
