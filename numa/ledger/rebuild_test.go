package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRebuild loses the ledger and wants what the bundles say.
func TestRebuild(t *testing.T) {
	l := open(t)
	init := start(t, "thread")
	init.line(t)
	p, err := ProcessOf(init.Process.Pid)
	must(t, err)

	a := reserve(t, l, "a", dedicated(1, 2))
	own, _, err := l.Confirm(t.Context(), a, p)
	must(t, err)
	writeRecord(t, a, l.Record(own, p))
	pod := sharedOn(1)
	pod.Pod, pod.Sandbox, pod.Bytes = "a pod", true, 1<<33
	reserve(t, l, "pod", pod)
	reserve(t, l, "unplaced", sharedOn(0))
	deadOwner, deadInit := deadProcess(t), deadProcess(t)
	gone := as(t, l, deadOwner)
	orphan := reserve(t, gone, "its shim is dead", sharedOn(0))
	own, _, err = l.Confirm(t.Context(), orphan, p)
	must(t, err)
	writeRecord(t, orphan, gone.Record(own, p))
	// A bundle of another containerd, under a name that leads there.
	elsewhere := filepath.Join(t.TempDir(), "else where")
	must(t, os.MkdirAll(filepath.Join(elsewhere, "ns", "z"), 0o700))
	link := elsewhere + " link"
	must(t, os.Symlink(elsewhere, link))
	for _, root := range []string{link, elsewhere} {
		b := filepath.Join(root, "ns", "z")
		got, err := l.Reserve(t.Context(), b, always(dedicated(9)))
		must(t, err)
		writeRecord(t, b, l.Record(got, Process{}))
		if root == link {
			must(t, l.Release(t.Context(), b)) // it is known by the other name
		}
	}
	before, ids := read(t, l)
	// The roots' first name counts.
	before[slices.Index(ids, "z")].Bundle = filepath.Join(link, "ns", "z")
	slices.SortFunc(before, func(a, b Entry) int { return strings.Compare(a.Bundle, b.Bundle) })

	for id, edit := range map[string]func(r *Record){
		"dead":          func(r *Record) { r.Owner = deadOwner },
		"both dead":     func(r *Record) { r.Owner, r.Init = deadOwner, deadInit },
		"other boot":    func(r *Record) { r.Boot = sample(0).boot },
		"without owner": func(r *Record) { r.Owner = Process{} },
		"negative":      func(r *Record) { r.Width = -1 },
	} {
		r := l.Record(dedicated(3), Process{})
		edit(&r)
		writeRecord(t, bundle(l, id), r)
	}
	for id, text := range map[string]string{
		"garbage": "{", "no claim": "{}", "null": `{"claim":null}`, "type": `{"claim":{"nodes":7}}`,
		"long": strings.Repeat(" ", maxRecord+1),
	} {
		must(t, os.MkdirAll(bundle(l, id), 0o700))
		must(t, os.WriteFile(filepath.Join(bundle(l, id), RecordFile), []byte(text), 0o600))
	}
	must(t, os.MkdirAll(bundle(l, "symlink"), 0o700))
	must(t, os.Symlink(filepath.Join(a, RecordFile), filepath.Join(bundle(l, "symlink"), RecordFile)))
	must(t, os.MkdirAll(bundle(l, "FIFO"), 0o700))
	must(t, unix.Mkfifo(filepath.Join(bundle(l, "FIFO"), RecordFile), 0o600))
	must(t, os.MkdirAll(filepath.Join(bundle(l, "directory"), RecordFile), 0o700))
	must(t, os.WriteFile(filepath.Join(l.config.Roots[0], "file"), nil, 0o600))

	must(t, os.Remove(filepath.Join(l.config.Dir, stateFile)))
	rebuilt, _ := read(t, l)
	if !sameEntries(before, rebuilt) {
		t.Errorf("rebuilt %+v, was %+v", rebuilt, before)
	}
	write(t, l)
	if written, _ := read(t, l); !sameEntries(before, written) {
		t.Errorf("written %+v, was %+v", written, before)
	}
	demand, err := l.Demand()
	must(t, err)
	if total := sum(demand[:]); total < 4.9 || total > 5 {
		t.Errorf("demand %v", demand)
	}
	sound(t, l)
}

func sum(numbers []float64) (total float64) {
	for _, n := range numbers {
		total += n
	}
	return total
}

// deadProcess is one that has been, and been reaped.
func deadProcess(t *testing.T) Process {
	t.Helper()
	c := start(t, "thread")
	c.line(t)
	p, err := ProcessOf(c.Process.Pid)
	must(t, err)
	must(t, c.Process.Kill())
	c.Wait()
	return p
}

func TestReadRecord(t *testing.T) {
	l := open(t)
	if _, err := ReadRecord(bundle(l, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	want := l.Record(dedicated(1, 3), Process{Pid: 7, Start: 8, Namespace: 9})
	writeRecord(t, bundle(l, "a"), want)
	got, err := ReadRecord(bundle(l, "a"))
	must(t, err)
	if fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(got.Claim()) != fmt.Sprint(dedicated(1, 3)) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestRoots has the file of roots damaged, full, or in the way.
func TestRoots(t *testing.T) {
	elsewhere := t.TempDir()
	b := filepath.Join(elsewhere, "ns", "a")
	var full []byte
	for i := range maxRoots {
		full = append(appendEscaped(full, fmt.Sprintf("/%d/gone", i)), '\n')
	}
	for name, c := range map[string]struct {
		prepare func(file string)
		known   bool
	}{
		"none":        {func(string) {}, true},
		"garbage":     {func(file string) { must(t, os.WriteFile(file, []byte("relative\n%\n\x00\n//\n"), 0o600)) }, true},
		"of the gone": {func(file string) { must(t, os.WriteFile(file, full, 0o600)) }, true},
		"full": {func(file string) {
			must(t, os.WriteFile(file, []byte(strings.Repeat("/\n", maxRoots)), 0o600))
		}, false},
		"directory": {func(file string) { must(t, os.Mkdir(file, 0o700)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t)
			var told []error
			l.config.Defect = func(err error) { told = append(told, err) }
			c.prepare(filepath.Join(l.config.Dir, rootsFile))
			for range 2 {
				claim, err := l.Reserve(t.Context(), b, always(dedicated(1)))
				must(t, err)
				writeRecord(t, b, l.Record(claim, Process{}))
			}
			if c.known == (len(told) > 0) {
				t.Errorf("told of %v", told)
			}
			must(t, os.Remove(filepath.Join(l.config.Dir, stateFile)))
			if _, ids := read(t, l); slices.Equal(ids, []string{"a"}) != c.known {
				t.Errorf("found again: %q", ids)
			}
		})
	}
}
