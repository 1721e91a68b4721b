package numa

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/fstest"

	"containerd-shim-numa-v1/numa/cpuset"
)

const boot = "5b0e7a3c-0a51-4a5c-8a2d-1f0f5a9d4c11"

// ownDir makes a directory that nobody else can use.
func ownDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// loadCached reads a machine as a process does that has not known it.
func loadCached(dir string, fsys fs.FS, bootID string) (*Topology, error) {
	return NewMachine(dir, fsys, bootID).Topology()
}

// load tells also whether the cache was believed: of the files of single
// CPUs, none was opened.
func load(t *testing.T, dir string, fsys fstest.MapFS, boot string) (m *Topology, hit bool) {
	t.Helper()
	c := &counting{FS: fsys}
	m, err := loadCached(dir, c, boot)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.check(); err != nil {
		t.Error(err)
	}
	anew, err := Discover(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(m.Nodes, anew.Nodes, func(a, b Node) bool { return a.Memory == b.Memory }) || m.Hash != anew.Hash {
		t.Errorf("got %+v\nwant %+v", m, anew)
	}
	const presenceFiles = 4
	return m, c.opened <= presenceFiles+len(m.Nodes)
}

func TestLoadCached(t *testing.T) {
	dir := ownDir(t)
	for i, c := range []struct {
		boot  string
		edits []string
		hit   bool
	}{
		{boot, nil, false},
		{boot, nil, true},
		{"another", nil, false},
		{"another", nil, true},
		{boot, nil, false},
		{boot, []string{nodeDir + "node0/meminfo", "Node 0 MemTotal: 4096 kB"}, true},
		{boot, []string{cpuDir + "online", "0-94"}, false},
		{boot, []string{cpuDir + "isolated", "1"}, false},
		{boot, []string{nodeDir + "online", "0"}, false},
		{boot, []string{nodeDir + "has_memory", "0"}, false},
		{boot, []string{nodeDir + "has_memory", "0"}, true},
	} {
		if _, hit := load(t, dir, with(t, "r5.metal", c.edits...), c.boot); hit != c.hit {
			t.Errorf("%d: boot %s with %q: believed the file: %t, want %t", i, c.boot, c.edits, hit, c.hit)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
	info, err := os.Stat(filepath.Join(dir, cacheName))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
}

// TestLoadCachedWhole compares all of the topology, for each machine.
func TestLoadCachedWhole(t *testing.T) {
	for name := range shapes {
		dir, fsys := ownDir(t), with(t, name)
		anew, _ := load(t, dir, fsys, boot)
		cached, hit := load(t, dir, fsys, boot)
		a, errA := json.Marshal(anew)
		b, errB := json.Marshal(cached)
		if !hit || !bytes.Equal(a, b) || errors.Join(errA, errB) != nil {
			t.Errorf("%s: believed the file: %t\n%s\n%s", name, hit, a, b)
		}
	}
}

// TestLoadCachedHalfTold does not remember a machine some of whose caches the
// kernel does not tell of yet.
func TestLoadCachedHalfTold(t *testing.T) {
	dir, fsys := ownDir(t), with(t, "r5.metal", cpuDir+"cpu5/cache/*", absent)
	fsys[cpuDir+"cpu0/cache/index3/shared_cpu_list"].Data = []byte("0-4,6-23,48-71")
	for range 2 {
		if _, hit := load(t, dir, fsys, boot); hit {
			t.Error("believed a file that should not be there")
		}
	}
}

// TestLoadCachedSpoilt finds anything but what it wrote in the file's place.
func TestLoadCachedSpoilt(t *testing.T) {
	fsys := with(t, "holes")
	write := func(change func(*cacheEntry)) func(path string) error {
		return func(path string) error {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			var entry cacheEntry
			if err := json.Unmarshal(text, &entry); err != nil {
				return err
			}
			change(&entry)
			return writeCache(path, entry)
		}
	}
	rehash := func(change func(*Topology)) func(string) error {
		return write(func(e *cacheEntry) {
			change(e.Topology)
			e.Topology.Hash = e.Topology.hash()
		})
	}
	replace := func(what func(path string) error) func(string) error {
		return func(path string) error { return errors.Join(os.Remove(path), what(path)) }
	}
	for _, c := range []struct {
		name  string
		spoil func(path string) error
	}{
		{"is gone", os.Remove},
		{"is empty", func(path string) error { return os.Truncate(path, 0) }},
		{"is cut", func(path string) error { return os.Truncate(path, 1000) }},
		{"is huge", func(path string) error { return os.Truncate(path, 1<<40) }},
		{"others may write", func(path string) error { return os.Chmod(path, 0o622) }},
		{"is a directory", replace(func(path string) error { return os.Mkdir(path, 0o700) })},
		{"is a FIFO", replace(func(path string) error { return syscall.Mkfifo(path, 0o600) })},
		{"is a link", func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.Symlink(path+".old", path))
		}},
		{"holds nothing", write(func(e *cacheEntry) { e.Topology = nil })},
		{"is of another format", write(func(e *cacheEntry) { e.Key = "9" + e.Key })},
		{"has another hash", write(func(e *cacheEntry) { e.Topology.Hash = "0123456789abcdef" })},
		{"was changed", write(func(e *cacheEntry) { e.Topology.Cores[0].Die++ })},
		{"has other CPUs", rehash(func(m *Topology) { m.Online = cpuset.Of(0) })},
		{"isolates a CPU", rehash(func(m *Topology) { m.Isolated = cpuset.Of(0) })},
		{"lacks nodes", rehash(func(m *Topology) { m.Nodes = nil })},
		{"has another node", rehash(func(m *Topology) { m.Nodes[2].ID = 6 })},
		{"lacks a core", rehash(func(m *Topology) { m.Cores = m.Cores[1:] })},
		{"lacks distances", rehash(func(m *Topology) { m.Nodes[1].Distance = nil })},
		{"points beyond nodes", rehash(func(m *Topology) { m.Cores[3].Node = 3 })},
		{"points beyond caches", rehash(func(m *Topology) { m.Cores[3].Cache = 4 })},
		{"points before caches", rehash(func(m *Topology) { m.Cores[3].Cache = -2 })},
		{"has a cache elsewhere", rehash(func(m *Topology) { m.Caches[0].Node = -1 })},
		{"has caches that overlap", rehash(func(m *Topology) { m.Caches[1].CPUs = m.Online })},
		{"counts threads wrong", rehash(func(m *Topology) { m.ThreadsPerCore = 0 })},
	} {
		dir := ownDir(t)
		path := filepath.Join(dir, cacheName)
		load(t, dir, fsys, boot)
		if _, hit := load(t, dir, fsys, boot); !hit {
			t.Fatal("the file was not believed before it was spoilt")
		}
		if err := c.spoil(path); err != nil {
			t.Fatal(err)
		}
		if _, hit := load(t, dir, fsys, boot); hit {
			t.Errorf("a file that %s was believed", c.name)
		}
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		// What was in the way is replaced, except for a directory.
		if _, hit := load(t, dir, fsys, boot); hit == info.IsDir() {
			t.Errorf("after a file that %s, the next was believed: %t", c.name, hit)
		}
	}
}

// TestLoadCachedNowhere has no place for the file.
func TestLoadCachedNowhere(t *testing.T) {
	for range 2 {
		if _, hit := load(t, filepath.Join(t.TempDir(), "missing"), with(t, "holes"), boot); hit {
			t.Error("believed a file that cannot be there")
		}
	}
	// What was its own directory has become everybody's.
	dir := ownDir(t)
	load(t, dir, with(t, "holes"), boot)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, hit := load(t, dir, with(t, "holes"), boot); hit {
		t.Error("believed a file in a directory that others can use")
	}
	if m, err := loadCached(t.TempDir(), fstest.MapFS{}, boot); err == nil || m != nil {
		t.Errorf("an empty /sys: %v, %v", m, err)
	}
}

func FuzzParseCache(f *testing.F) {
	dir := ownDir(f)
	if _, err := loadCached(dir, with(f, "vm-2cpu"), boot); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, cacheName))
	if err != nil {
		f.Fatal(err)
	}
	var entry cacheEntry
	if err := json.Unmarshal(text, &entry); err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"Key":"x","Topology":{"Nodes":[{"CPUs":"0"}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseCache(text, entry.Key)
		if err != nil {
			return
		}
		if err := m.check(); err != nil {
			t.Error(err)
		}
	})
}
