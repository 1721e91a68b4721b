package shim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/proto"
)

// delete runs delete as containerd does and returns what was deleted, sorted.
func (r *rig) delete(id string) []string {
	r.Helper()
	deleted, stderr, err := r.tryDelete(id)
	if err != nil {
		r.Fatalf("delete %s: %v: %s", id, err, stderr)
	}
	return deleted
}

func (r *rig) tryDelete(id string) (deleted []string, stderr string, err error) {
	r.Helper()
	os.Remove(r.deleted)
	bundle := filepath.Join(r.bundles, id)
	cwd := bundle
	if _, err := os.Stat(bundle); err != nil {
		cwd = r.dir
	}
	cmd := r.shim(cwd, append(r.flags(id, "-bundle", bundle), commandDelete)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, errs.String(), err
	}
	var response task.DeleteResponse
	if err := proto.Unmarshal(out.Bytes(), &response); err != nil {
		r.Fatal(err)
	}
	if response.Pid != 42 || response.ExitStatus != 137 || !response.ExitedAt.AsTime().Equal(time.Unix(1700000000, 0)) {
		r.Errorf("answer %v", &response)
	}
	data, _ := os.ReadFile(r.deleted)
	deleted = strings.Fields(string(data))
	slices.Sort(deleted)
	return deleted, errs.String(), nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// newPod is a pod with a daemon, two containers, and strangers beside it.
func newPod(t *testing.T) (r *rig, socket string) {
	r = newRig(t)
	r.bundle("pod1", pod("pod1"))
	r.bundle("app1", pod("pod1"))
	r.bundle("app2", pod("pod1"))
	r.bundle("pod2", pod("pod2"))
	r.bundle("app3", pod("pod2"))
	r.bundle("alone", nil)
	r.bundle("mention", map[string]string{"note": "pod1"})
	if err := os.Mkdir(filepath.Join(r.bundles, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	return r, r.mustStart("pod1", nil)
}

func TestDeleteWhileDaemonLives(t *testing.T) {
	r, socket := newPod(t)
	for _, id := range []string{"app1", "pod1", "alone", "empty", "vanished"} {
		if got := r.delete(id); !slices.Equal(got, []string{id}) {
			t.Errorf("delete %s deleted %v", id, got)
		}
	}
	if answer, err := dial(socket); answer != listening || err != nil {
		t.Errorf("dial: %v, %v", answer, err)
	}
}

func TestDeleteOfDeadGroup(t *testing.T) {
	for name, lose := range map[string]func(r *rig){
		"whole bundle": func(*rig) {},
		"no address":   func(r *rig) { os.Remove(r.bundles + "/pod1/address") },
		"no config":    func(r *rig) { os.Remove(r.bundles + "/pod1/config.json") },
		"empty bundle": func(r *rig) { os.RemoveAll(r.bundles + "/pod1"); os.Mkdir(r.bundles+"/pod1", 0o700) },
		"no bundle":    func(r *rig) { os.RemoveAll(r.bundles + "/pod1") },
	} {
		t.Run(name, func(t *testing.T) {
			r, socket := newPod(t)
			r.mustStart("app1", nil)
			r.kill(r.daemon())
			lose(r)
			// A member's delete is about itself, whatever is left of it.
			if got := r.delete("app2"); !slices.Equal(got, []string{"app2"}) {
				t.Errorf("delete app2 deleted %v", got)
			}
			os.Remove(r.bundles + "/app1/config.json")
			if got := r.delete("app1"); !slices.Equal(got, []string{"app1"}) || !exists(socket) {
				t.Errorf("delete app1 deleted %v, socket exists: %t", got, exists(socket))
			}
			want := []string{"app2", "pod1"}
			if got := r.delete("pod1"); !slices.Equal(got, want) {
				t.Errorf("delete pod1 deleted %v, want %v", got, want)
			}
			if exists(socket) {
				t.Error("the socket is left")
			}
			if got := r.delete("pod1"); !slices.Equal(got, []string{"pod1"}) {
				t.Errorf("second delete of pod1 deleted %v", got)
			}
		})
	}
}

func TestDeleteKeepsSocketUntilAllIsDone(t *testing.T) {
	r, socket := newPod(t)
	r.kill(r.daemon())
	r.write(r.bundles+"/app2/undead", nil)
	got, stderr, err := r.tryDelete("pod1")
	if err != nil || !slices.Equal(got, []string{"app1", "pod1"}) || !strings.Contains(stderr, "undead") || !exists(socket) {
		t.Fatalf("deleted %v, says %q, %v, socket exists: %t", got, stderr, err, exists(socket))
	}
	os.Remove(r.bundles + "/app2/undead")
	if got := r.delete("pod1"); !slices.Equal(got, []string{"app1", "app2", "pod1"}) || exists(socket) {
		t.Errorf("again: deleted %v, socket exists: %t", got, exists(socket))
	}
	r.write(r.bundles+"/alone/undead", nil)
	if _, stderr, err := r.tryDelete("alone"); err == nil || !strings.Contains(stderr, "delete alone: undead") {
		t.Errorf("own failure: %v, %q", err, stderr)
	}
}

// The group has a daemon again: its containers are that one's.
func TestDeleteOfRevivedGroup(t *testing.T) {
	r, _ := newPod(t)
	r.kill(r.daemon())
	r.mustStart("app1", nil)
	if got := r.delete("pod1"); !slices.Equal(got, []string{"pod1"}) {
		t.Errorf("deleted %v", got)
	}
	r.daemon()
}

// An orderly end is no crash.
func TestDeleteAfterOrderlyEnd(t *testing.T) {
	r, socket := newPod(t)
	pid := r.daemon()
	r.call(r.client(socket), "Shutdown")
	r.gone(pid, socket, r.bundles+"/pod1")
	if got := r.delete("pod1"); !slices.Equal(got, []string{"pod1"}) {
		t.Errorf("deleted %v", got)
	}
}

// The daemon came back after the siblings were listed.
func TestDeleteSiblingOfRevivedGroup(t *testing.T) {
	path := filepath.Join(socketDir(t), "x")
	f, err := claim(path)
	if err != nil {
		t.Fatal(err)
	}
	deleted := 0
	r := Runtime{Delete: func(context.Context, Target) (Exit, error) { deleted++; return Exit{}, nil }}
	if err := r.deleteSibling(t.Context(), Target{ID: "app1"}, path); err != nil || deleted != 0 {
		t.Errorf("with a daemon: %d deleted, %v", deleted, err)
	}
	f.Close()
	if err := r.deleteSibling(t.Context(), Target{ID: "app1"}, path); err != nil || deleted != 1 {
		t.Errorf("without: %d deleted, %v", deleted, err)
	}
}

// TestDeleteKillsAllAtOnce has each container of a group end only after all of
// them were killed.
func TestDeleteKillsAllAtOnce(t *testing.T) {
	const apps = 40
	rig := newRig(t)
	rig.bundle("pod1", pod("pod1"))
	for n := range apps {
		rig.bundle(fmt.Sprint("app", n), pod("pod1"))
	}
	var killed sync.WaitGroup
	killed.Add(apps + 1)
	r := Runtime{Delete: func(context.Context, Target) (Exit, error) {
		killed.Done()
		killed.Wait()
		return Exit{}, nil
	}}
	done := make(chan error, 1)
	go func() {
		_, err := r.deleteGroup(t.Context(), Target{ID: "pod1", Bundle: filepath.Join(rig.bundles, "pod1")}, filepath.Join(rig.dir, "socket"))
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("some wait for others to end")
	}
}

// TestAge knows when this process began, as long as it matters.
func TestAge(t *testing.T) {
	first := age()
	if first <= 0 {
		t.Fatalf("%v old", first)
	}
	for deadline := time.Now().Add(time.Minute); age() <= first && first < deleteBudget; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still %v old", first)
		}
	}
	if got := age(); got > deleteBudget {
		t.Errorf("%v old, more than the budget", got)
	}
}

// A delete that begins too late kills all the same.
func TestBudget(t *testing.T) {
	for age, want := range map[time.Duration]time.Duration{
		0:                          deleteBudget,
		time.Second:                deleteBudget - time.Second,
		deleteBudget - leastBudget: leastBudget,
		deleteBudget:               leastBudget,
	} {
		if got := budget(age); got != want {
			t.Errorf("%v old: %v, want %v", age, got, want)
		}
	}
}
