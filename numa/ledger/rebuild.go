package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

const (
	// defaultRoot is where a default containerd, 1.7 or 2.x, has its bundles.
	defaultRoot = "/run/containerd/io.containerd.runtime.v2.task"

	// RecordFile is the file of a bundle with its Record, the value of the
	// key "claim" of a JSON object.
	RecordFile = "placement.json"

	// maxRecord bounds a record's file, in bytes, maxRoots the number of
	// roots, and maxRootsSize their file.
	maxRecord    = 64 << 10
	maxRoots     = 64
	maxRootsSize = maxRoots * 3 * (maxPath + 1)
)

// Record is an Entry as its bundle keeps it, which is what a lost ledger is
// rebuilt from. It names the boot: a bundle may outlive it.
type Record struct {
	Boot    string     `json:"boot"`
	Owner   Process    `json:"owner"`
	Init    Process    `json:"init,omitzero"`
	Pod     string     `json:"pod,omitempty"`
	Sandbox bool       `json:"sandbox,omitempty"`
	Milli   int        `json:"milli"`
	Width   int        `json:"width"`
	Bytes   int64      `json:"bytes"`
	Nodes   cpuset.Set `json:"nodes"`
	Owned   cpuset.Set `json:"owned"`
	Idle    cpuset.Set `json:"idle"`
	Granted cpuset.Set `json:"granted"`
}

// Record is what a bundle is to keep of a claim of this process's. Init is
// zero before there is one.
func (l *Ledger) Record(c numa.Claim, init Process) Record {
	return Record{
		Boot: l.boot, Owner: l.self, Init: init, Pod: c.Pod, Sandbox: c.Sandbox,
		Milli: c.Milli, Width: c.Width, Bytes: c.Bytes,
		Nodes: c.Nodes, Owned: c.Owned, Idle: c.Idle, Granted: c.Granted,
	}
}

// Claim is the claim that a record is of.
func (r *Record) Claim() numa.Claim {
	return numa.Claim{
		Pod: r.Pod, Sandbox: r.Sandbox, Milli: r.Milli, Width: r.Width, Bytes: r.Bytes,
		Nodes: r.Nodes, Owned: r.Owned, Idle: r.Idle, Granted: r.Granted,
	}
}

// ReadRecord reads the record of a bundle. The error wraps fs.ErrNotExist if
// it has none.
func ReadRecord(bundle string) (Record, error) {
	path := filepath.Join(bundle, RecordFile)
	text, err := readAt(unix.AT_FDCWD, path, path, maxRecord)
	if err != nil {
		return Record{}, err
	}
	var file struct {
		Claim *Record `json:"claim"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return Record{}, fmt.Errorf("parse %s: %w", path, err)
	}
	if file.Claim == nil {
		return Record{}, fmt.Errorf("parse %s: no claim", path)
	}
	return *file.Claim, nil
}

// rebuild makes a state of what the bundles say. A bundle that cannot be read
// has no claim: there is nobody to tell.
func (l *Ledger) rebuild(d directory) *state {
	s := &state{boot: l.boot, topology: l.topology.Load().Hash}
	for _, root := range l.knownRoots(d) {
		for _, namespace := range names(root) {
			for _, id := range names(filepath.Join(root, namespace)) {
				if e, ok := l.recorded(filepath.Join(root, namespace, id)); ok && len(s.rows) < maxRows {
					s.rows = append(s.rows, row{Entry: e})
				}
			}
		}
	}
	slices.SortFunc(s.rows, func(a, b row) int { return strings.Compare(a.Bundle, b.Bundle) })
	for i := range s.rows {
		s.arrive(s.rows[i].Claim)
	}
	return s
}

// recorded is the entry that a bundle keeps, if it counts.
func (l *Ledger) recorded(bundle string) (Entry, bool) {
	r, err := ReadRecord(bundle)
	if err != nil || r.Boot != l.boot {
		return Entry{}, false
	}
	e := Entry{Bundle: bundle, Claim: r.Claim(), Owner: r.Owner, Init: r.Init}
	if e.check() != nil {
		return Entry{}, false
	}
	alive := !l.isDead(e.Owner) || e.Init.Pid != 0 && !l.isDead(e.Init)
	return e, alive
}

// names are those of the entries of a directory, none if it cannot be read.
func names(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(0)
	return names
}

// knownRoots are the directories that bundles have come from and may come
// from, each once, whatever its names.
func (l *Ledger) knownRoots(d directory) []string {
	var seen []os.FileInfo
	var roots []string
	for _, root := range append(d.roots(), l.config.Roots...) {
		info, err := os.Stat(root)
		if err != nil || slices.ContainsFunc(seen, func(i os.FileInfo) bool { return os.SameFile(i, info) }) {
			continue
		}
		seen = append(seen, info)
		roots = append(roots, root)
	}
	return roots
}

// roots are the directories in the file of roots; a line that is none is left
// out.
func (d directory) roots() []string {
	text, err := d.read(rootsFile, maxRootsSize)
	if err != nil {
		return nil
	}
	var roots []string
	for line := range strings.Lines(string(text)) {
		root, err := unescape(strings.TrimSuffix(line, "\n"))
		if err == nil && checkBundle(root) == nil && len(roots) < maxRoots {
			roots = append(roots, root)
		}
	}
	return roots
}

// addRoot adds to the file of roots.
func (d directory) addRoot(root string, step func(string)) error {
	roots := d.roots()
	if slices.Contains(roots, root) {
		return nil
	}
	if len(roots) == maxRoots {
		roots = slices.DeleteFunc(roots, func(root string) bool {
			_, err := os.Stat(root)
			return errors.Is(err, os.ErrNotExist)
		})
	}
	if len(roots) == maxRoots {
		return fmt.Errorf("remember %s: bundles lie in more than %d directories: %w", root, maxRoots, ErrFull)
	}
	var text []byte
	for _, root := range append(roots, root) {
		text = append(appendEscaped(text, root), '\n')
	}
	return d.write(rootsFile, text, step)
}
