package rig

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Census counts everything of this machine that a container can leave behind.
// A key names a kind and an instance of it, without what changes from one
// daemon process to the next; the value is how many there are.
type Census map[string]int

// settleBound is how long a shim may take to be gone after its last
// container's deletion was answered.
const settleBound = 10 * time.Second

// TakeCensus looks at processes, mount tables and namespaces, cgroups, all of
// /run (sockets, bundles, FIFOs, runtime state, ledgers), and the daemon's
// work and temporary directories.
func (d *Daemon) TakeCensus() Census {
	c := Census{}
	d.countProcesses(c)
	d.countMounts(c)
	for _, dir := range cgroupDirs(d.cfg.Machine.Name()) {
		if filepath.Base(dir) != d.cfg.Machine.Name() { // the parent of all is the run's own
			c["cgroup "+dir]++
		}
	}
	countTree(c, "/run")
	for _, e := range LedgerEntries() {
		c["ledger "+e]++
	}
	countTree(c, filepath.Join(d.Root(), "io.containerd.runtime.v2.task"))
	countTree(c, filepath.Join(d.Root(), "io.containerd.grpc.v1.cri"))
	countTree(c, filepath.Join(d.Root(), "tmpmounts"))
	countTree(c, d.tmp())
	return c
}

// LedgerDir is where the shims keep their ledger of placements.
const LedgerDir = "/run/containerd-numa"

// LedgerEntries are the bundles of the containers in the ledger: the first
// field of each line but the two of the header.
func LedgerEntries() []string {
	const header = 2
	b, err := os.ReadFile(filepath.Join(LedgerDir, "state"))
	if err != nil {
		return nil
	}
	var entries []string
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for _, line := range lines[min(header, len(lines)):] {
		bundle, _, _ := strings.Cut(line, " ")
		entries = append(entries, bundle)
	}
	return entries
}

// mountNamespaces is a census's key for how many there are.
const mountNamespaces = "mount namespaces"

// countProcesses counts every process of the PID namespace, and the mount
// namespaces that they keep alive. Zombies count: nobody reaped them.
func (d *Daemon) countProcesses(c Census) {
	namespaces := map[string]bool{}
	for _, pid := range pids() {
		name := ProcessName(pid)
		if name == "" || pid == os.Getpid() {
			continue // gone meanwhile
		}
		c["process "+name]++
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err == nil {
			namespaces[ns] = true
		}
	}
	c[mountNamespaces] = len(namespaces)
}

// countMounts counts the mounts of the namespace that containerd is in.
func (d *Daemon) countMounts(c Census) {
	for _, line := range MountTable() {
		c["mount "+line]++
	}
}

// countTree counts every file and directory below root by type and path. It
// does not look into what is mounted there: the mount itself is counted.
func countTree(c Census, root string) {
	var top unix.Stat_t
	if unix.Stat(root, &top) != nil {
		return
	}
	filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return nil // a name that went away while we looked
		}
		c["file "+e.Type().String()[:1]+" "+path]++
		var st unix.Stat_t
		if e.IsDir() && unix.Lstat(path, &st) == nil && st.Dev != top.Dev {
			return fs.SkipDir
		}
		return nil
	})
}

// Diff lists what differs, one line each, "" when nothing does. Processes that
// have ended, and the mount namespaces they kept, are no difference: they were
// an earlier test's that was on its way out.
func (c Census) Diff(after Census) string {
	var b strings.Builder
	keys := slices.Collect(maps.Keys(c))
	for k := range after {
		if _, ok := c[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		ended := after[k] < c[k] && (strings.HasPrefix(k, "process ") || k == mountNamespaces)
		if c[k] != after[k] && !ended {
			fmt.Fprintf(&b, "%+d %s (%d, was %d)\n", after[k]-c[k], k, after[k], c[k])
		}
	}
	return b.String()
}

// without drops the keys that start with one of the prefixes.
func (c Census) without(prefixes []string) Census {
	rest := maps.Clone(c)
	maps.DeleteFunc(rest, func(key string, _ int) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
	})
	return rest
}

// AwaitCensus waits, bounded, until a new census equals before, but for keys
// with the tolerated prefixes. It returns the remaining difference, "" for
// none.
func (d *Daemon) AwaitCensus(before Census, tolerated ...string) (diff string) {
	before = before.without(tolerated)
	Eventually(settleBound, func() bool {
		diff = before.Diff(d.TakeCensus().without(tolerated))
		return diff == ""
	})
	return diff
}

// MountTable is /proc/self/mountinfo without the ids, which change. The
// program shares its mount namespace with containerd.
func MountTable() []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var table []string
	for line := range strings.Lines(string(b)) {
		// proc_pid_mountinfo(5): id, parent, device, root, mount point,
		// options, optional fields, "-", type, source, super options.
		f := strings.Fields(line)
		sep := slices.Index(f, "-")
		if sep < 0 {
			continue
		}
		table = append(table, fmt.Sprintf("%s %s on %s", f[sep+1], f[sep+2], f[4]))
	}
	return table
}

// pids lists the processes of the PID namespace.
func pids() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			list = append(list, pid)
		}
	}
	return list
}

// ProcessName is a process's command line, or "[comm] zombie" for one that
// nobody has waited for, or "" for one that does not exist.
func ProcessName(pid int) string {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	if len(cmdline) > 0 {
		return string(bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte{' '}))
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return fmt.Sprintf("[%s] zombie", bytes.TrimSpace(comm))
}
