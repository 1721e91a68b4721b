package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/ledger"
)

func TestList(t *testing.T) {
	state := t.TempDir()
	bundle := func(id string, files map[string]string) {
		t.Helper()
		dir := filepath.Join(state, bundles, "default", id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, content := range files {
			write(t, filepath.Join(dir, name), content, 0o600)
		}
	}
	bundle("a", map[string]string{
		"placement.json": `{"version":1,"nodes":"1","cpus":"4-7","reason":"node 1: 4 of 4 CPUs free","missed":["its device"],"later":"x"}`,
		"rootfs.json":    `{"tier":"detached","syscalls":114}`,
		"init.pid":       fmt.Sprint(os.Getpid()),
	})
	bundle("b", map[string]string{"placement.json": `{"version":1,"nodes":"","cpus":"0-1","kept":"kubelet gave CPUs"}`})
	bundle("c", map[string]string{"config.json": `{}`})
	bundle("d", map[string]string{"placement.json": `{"version":1,"nodes":"","cpus":"","fault":"the ledger is locked"}`})
	dir := filepath.Join(t.TempDir(), "ledger")

	var out strings.Builder
	if err := run(context.Background(), []string{"list", "-state", state, "-ledger", dir}, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 6 || !strings.HasSuffix(lines[3], " unplaced: the ledger is locked") || lines[5] != "1 of 3 run unplaced" || !strings.HasPrefix(lines[1], "default    a          1      4-7") || !strings.HasSuffix(lines[1], "CPUs free (missed: its device)") ||
		!strings.HasSuffix(lines[2], "left alone: kubelet gave CPUs") {
		t.Errorf("printed\n%s", out.String())
	}

	count(t, dir)
	out.Reset()
	if err := run(context.Background(), []string{"list", "-state", state, "-ledger", dir}, &out); err != nil {
		t.Fatal(err)
	}
	const counted = "0 on one node, 0 on several, 0 left alone, 0 refused, 2 unplaced\n"
	if !strings.HasSuffix(out.String(), counted) {
		t.Errorf("printed\n%s\nwithout %s", out.String(), counted)
	}

	out.Reset()
	if err := run(context.Background(), []string{"list", "-state", state, "-json"}, &out); err != nil {
		t.Fatal(err)
	}
	var p placed
	if err := json.NewDecoder(strings.NewReader(out.String())).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.ID != "a" || p.Nodes.String() != "1" || string(p.Rootfs) != `{"tier":"detached","syscalls":114}` {
		t.Errorf("decoded %+v", p)
	}
	if _, err := os.Stat("/sys/devices/system/node/node0"); err == nil && len(p.Memory) == 0 {
		if _, err := os.Stat("/sys/fs/cgroup/memory/memory.numa_stat"); err == nil {
			t.Error("no memory by node, though the kernel tells")
		}
	}
}

// count has a ledger count two containers that run unplaced.
func count(t *testing.T, dir string) {
	t.Helper()
	l, err := ledger.Open(ledger.Config{Dir: dir, Topology: &numa.Topology{}})
	if err != nil {
		t.Fatal(err)
	}
	l.Count(ledger.FailedOpen)
	l.Count(ledger.FailedOpen)
	if err := l.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestListTellsWhichFileIsBad(t *testing.T) {
	state := t.TempDir()
	for id, note := range map[string]string{"bad": "{", "good": `{"version":1,"nodes":"0","cpus":"0","reason":"room"}`} {
		dir := filepath.Join(state, bundles, "default", id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "placement.json"), note, 0o600)
	}
	var out strings.Builder
	err := run(context.Background(), []string{"list", "-state", state, "-ledger", state + "/ledger"}, &out)
	if err == nil || !strings.Contains(err.Error(), "default/bad/placement.json") {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(out.String(), "good") {
		t.Errorf("the others are not listed:\n%s", out.String())
	}
}

func TestListWithoutBundles(t *testing.T) {
	state := t.TempDir()
	if err := run(context.Background(), []string{"list", "-state", state, "-ledger", state + "/ledger"}, new(strings.Builder)); err != nil {
		t.Errorf("no bundles: %v", err)
	}
	err := run(context.Background(), []string{"list", "-state", filepath.Join(state, "none")}, new(strings.Builder))
	if err == nil || !strings.Contains(err.Error(), "containerd's state directory") {
		t.Errorf("no state directory: error %v", err)
	}
}
