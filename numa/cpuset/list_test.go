package cpuset

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		list, want string
		err        error
	}{
		{"", "", nil},
		{"\n", "", nil},
		{" ,, \t\n", "", nil},
		{"0", "0", nil},
		{"0-3,8", "0-3,8", nil},
		{"0-3 8\n", "0-3,8", nil},
		{",8,,0-3,", "0-3,8", nil},
		{"3,2,1,0", "0-3", nil},
		{"0-4,2-6", "0-6", nil},
		{"5-5", "5", nil},
		{"007", "7", nil},
		{"0-31:2/4", "0-1,4-5,8-9,12-13,16-17,20-21,24-25,28-29", nil},
		{"0-1023:1/512", "0,512", nil},
		{"0-9:3/4", "0-2,4-6,8-9", nil},
		{"1-9:1/8191", "1", nil},
		{"0-9:0/4", "", nil},
		{"100-200:0/4,3", "3", nil},
		{"4-7:2/2", "4-7", nil},
		{"63-64", "63-64", nil},
		{"8191", "8191", nil},
		{"0-8191", "0-8191", nil},

		{"8192", "", strconv.ErrRange},
		{"0-8192", "", strconv.ErrRange},
		{"99999999999999999999999", "", strconv.ErrRange},
		{"0-99999999999999999999", "", strconv.ErrRange},
		{"0-3:1/99999", "", strconv.ErrRange},
		{"3-0", "", strconv.ErrSyntax},
		{"-1", "", strconv.ErrSyntax},
		{"+1", "", strconv.ErrSyntax},
		{"1-", "", strconv.ErrSyntax},
		{"-", "", strconv.ErrSyntax},
		{"0--3", "", strconv.ErrSyntax},
		{"0 - 3", "", strconv.ErrSyntax},
		{"0-3-5", "", strconv.ErrSyntax},
		{"0x1", "", strconv.ErrSyntax},
		{"1.5", "", strconv.ErrSyntax},
		{"1;2", "", strconv.ErrSyntax},
		{"a", "", strconv.ErrSyntax},
		{"all", "", strconv.ErrSyntax},
		{"0-N", "", strconv.ErrSyntax},
		{"0:1/2", "", strconv.ErrSyntax},
		{"0-3:1", "", strconv.ErrSyntax},
		{"0-3:1/", "", strconv.ErrSyntax},
		{"0-3:/2", "", strconv.ErrSyntax},
		{"0-3:1/0", "", strconv.ErrSyntax},
		{"0-3:3/2", "", strconv.ErrSyntax},
		{"0-3:1/2/3", "", strconv.ErrSyntax},
		{"0-3:1/2:3", "", strconv.ErrSyntax},
		{"0\n5", "", strconv.ErrSyntax},
		{"1\x002", "", strconv.ErrSyntax},
		{"١", "", strconv.ErrSyntax},
	} {
		got, err := Parse(c.list)
		if got.String() != c.want || !errors.Is(err, c.err) {
			t.Errorf("Parse(%q) = %q, %v; want %q, %v", c.list, got, err, c.want, c.err)
		}
		if err != nil && !strings.Contains(err.Error(), strconv.Quote(strings.TrimSpace(c.list))) {
			t.Errorf("Parse(%q): the error does not name the list: %v", c.list, err)
		}
	}
}

// TestKernelAgrees writes lists to a cpuset cgroup and compares what the kernel
// made of them.
func TestKernelAgrees(t *testing.T) {
	const parent = "/sys/fs/cgroup/cpuset"
	if _, err := os.Stat(filepath.Join(parent, "cpuset.cpus")); err != nil {
		t.Skipf("needs the cpuset controller of cgroup v1: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a cgroup")
	}
	read := func(file string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	if root, err := Parse(read(filepath.Join(parent, "cpuset.cpus"))); err != nil || !Range(0, 1).IsSubset(root) {
		t.Skipf("needs CPUs 0 and 1, has %q (%v)", root, err)
	}
	dir, err := os.MkdirTemp(parent, "cpuset-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	cpus := filepath.Join(dir, "cpuset.cpus")
	for _, list := range []string{
		"", "0", "1", "0-1", "0,1", "1,0", ",0,,1,", "0 1", "0\t1", "01", "1-1", "0-1:1/2", "0-1:2/2", "0-1:0/2",
		"0-1:1/1", "1-1:1/8", "0-1:1/8",
		"1-0", "-1", "+1", "1-", "-", "0--1", "0 - 1", "0-1-1", "0x1", "a", "0:1/2", "0-1:1", "0-1:1/", "0-1:/2",
		"0-1:1/0", "0-1:3/2", "0-1:1/2/3", "0-1:1/2:3", "0;1",
	} {
		ours, parseErr := Parse(list)
		kernelErr := os.WriteFile(cpus, []byte(list+"\n"), 0)
		if (parseErr == nil) != (kernelErr == nil) {
			t.Errorf("%q: Parse says %v, the kernel %v", list, parseErr, kernelErr)
			continue
		}
		if kernel := read(cpus); parseErr == nil && kernel != ours.String() {
			t.Errorf("%q: Parse made it %q, the kernel %q", list, ours, kernel)
		}
	}
}

func TestJSON(t *testing.T) {
	type entry struct{ CPUs Set }
	text, err := json.Marshal(entry{Of(0, 1, 2, 9)})
	if err != nil || string(text) != `{"CPUs":"0-2,9"}` {
		t.Fatalf("%s, %v", text, err)
	}
	var back entry
	if err := json.Unmarshal(text, &back); err != nil || !back.CPUs.Equal(Of(0, 1, 2, 9)) {
		t.Errorf("%v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"CPUs":"2-1"}`), &back); err == nil || !back.CPUs.Equal(Of(0, 1, 2, 9)) {
		t.Errorf("a bad list: %v, %v", back, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, list := range []string{"", "0-3,8\n", "0-31:2/4", "8191", "0-8191:8191/8191", "3-0", "1,,2", "0-N", "all"} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		s, err := Parse(list)
		if err != nil {
			if !s.IsEmpty() {
				t.Errorf("Parse(%q) failed, yet returned %q", list, s)
			}
			return
		}
		if s.Max() > MaxID || s.Min() < -1 {
			t.Errorf("Parse(%q) holds %d-%d", list, s.Min(), s.Max())
		}
		again, err := Parse(s.String())
		if err != nil || !again.Equal(s) || again.String() != s.String() {
			t.Errorf("Parse(%q) = %q does not survive a round trip: %q, %v", list, s, again, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		if _, err := Parse("0-31,64-95\n"); err != nil {
			b.Fatal(err)
		}
	}
}
