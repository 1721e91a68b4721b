package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"containerd-shim-numa-v1/cgroups"
	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/numa/ledger"
)

// bundles is where containerd keeps the bundles of its tasks below its state
// directory, as <namespace>/<id>.
const bundles = "io.containerd.runtime.v2.task"

// maxNote bounds a file that a shim leaves in a bundle, in bytes.
const maxNote = 64 << 10

// placed is a container, as its bundle and its cgroup tell of it.
type placed struct {
	Namespace string `json:"namespace"`
	ID        string `json:"id"`
	Bundle    string `json:"bundle"`
	// Nodes and CPUs are in force; Why says why these, or why not. Unplaced
	// tells of a container that something has kept from having a place.
	Nodes    cpuset.Set `json:"nodes"`
	CPUs     cpuset.Set `json:"cpus"`
	Why      string     `json:"why"`
	Unplaced bool       `json:"unplaced,omitempty"`
	// Memory is what is used of each node, in bytes; nothing where the kernel
	// does not tell.
	Memory []cgroups.NodeMemory `json:"memory,omitempty"`
	// Rootfs is rootfs.json.
	Rootfs json.RawMessage `json:"rootfs,omitempty"`
}

// list prints the containers that shims have placed, or were to place. One whose
// bundle cannot be read is an error, after all others are printed.
func list(_ context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("list", flag.ContinueOnError)
	state := f.String("state", "/run/containerd", "containerd's state `directory`")
	dir := f.String("ledger", ledger.DefaultDir, "the ledger's `directory`")
	asJSON := f.Bool("json", false, "everything, one JSON object a line")
	if err := parse(f, args, out); err != nil {
		return err
	}
	if _, err := os.Stat(*state); err != nil {
		return fmt.Errorf("list: containerd's state directory: %w", err)
	}
	notes, err := fs.Glob(os.DirFS(*state), path.Join(bundles, "*", "*", "placement.json"))
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	var all []placed
	var bad []error
	for _, note := range notes {
		p, err := read(filepath.Join(*state, path.Dir(note)))
		switch {
		case errors.Is(err, fs.ErrNotExist): // deleted meanwhile
		case err != nil:
			bad = append(bad, fmt.Errorf("list: %w", err))
		default:
			all = append(all, p)
		}
	}
	write := table
	if *asJSON {
		write = lines
	}
	bad = append(bad, write(out, all))
	if !*asJSON {
		bad = append(bad, summary(out, all, *dir))
	}
	return errors.Join(bad...)
}

// summary says how many containers run without a place that they should have,
// and what the ledger has counted.
func summary(out io.Writer, all []placed, dir string) error {
	unplaced := 0
	for _, p := range all {
		if p.Unplaced {
			unplaced++
		}
	}
	fmt.Fprintf(out, "\n%d of %d run unplaced\n", unplaced, len(all))
	n, err := ledger.ReadCounters(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing has been placed since boot
	}
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	_, err = fmt.Fprintf(out, "created since the ledger was begun: %d on one node, %d on several, %d left alone, %d refused, %d unplaced\n",
		n[ledger.Placed], n[ledger.Spilled], n[ledger.Unplaced], n[ledger.Refused], n[ledger.FailedOpen])
	return err
}

// read reads what a bundle tells.
func read(bundle string) (placed, error) {
	p := placed{Bundle: bundle, ID: filepath.Base(bundle), Namespace: filepath.Base(filepath.Dir(bundle))}
	data, err := readNote(filepath.Join(bundle, "placement.json"))
	if err != nil {
		return p, err
	}
	var note struct {
		Nodes, CPUs         cpuset.Set
		Reason, Kept, Fault string
		Missed              []string
	}
	if err := json.Unmarshal(data, &note); err != nil {
		return p, fmt.Errorf("%s/placement.json: %w", bundle, err)
	}
	p.Nodes, p.CPUs, p.Unplaced = note.Nodes, note.CPUs, note.Fault != ""
	p.Why = why(note.Fault, note.Kept, note.Reason, note.Missed)
	if data, err := readNote(filepath.Join(bundle, "rootfs.json")); err == nil && json.Valid(data) {
		p.Rootfs = data
	}
	p.Memory = memory(bundle)
	return p, nil
}

// why is what an operator should read first.
func why(fault, kept, reason string, missed []string) string {
	switch {
	case fault != "":
		return "unplaced: " + fault
	case kept != "":
		return "left alone: " + kept
	case len(missed) > 0:
		return reason + " (missed: " + strings.Join(missed, "; ") + ")"
	}
	return reason
}

// readNote reads a file of a bundle.
func readNote(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxNote))
}

// memory is what the container uses of each node, nil if it has no process or
// the kernel does not tell.
func memory(bundle string) []cgroups.NodeMemory {
	data, err := readNote(filepath.Join(bundle, "init.pid"))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return nil
	}
	cgroup, err := cgroups.Load(pid)
	if err != nil {
		return nil
	}
	stat, err := cgroup.NUMAStat()
	if err != nil {
		return nil
	}
	return stat
}

// lines prints containers for programs.
func lines(out io.Writer, all []placed) error {
	encoder := json.NewEncoder(out)
	for _, p := range all {
		if err := encoder.Encode(p); err != nil {
			return err
		}
	}
	return nil
}

// table prints containers for people.
func table(out io.Writer, all []placed) error {
	const gap = 2
	w := tabwriter.NewWriter(out, 0, 0, gap, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tCONTAINER\tNODES\tCPUS\tMEMORY BY NODE\tWHY")
	for _, p := range all {
		var by []string
		for _, m := range p.Memory {
			by = append(by, fmt.Sprintf("%d: %.1f MiB", m.Node, float64(m.Total())/(1<<20)))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Namespace, p.ID, dash(p.Nodes.String()), dash(p.CPUs.String()), dash(strings.Join(by, " ")), p.Why)
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
