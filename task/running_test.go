package task

import (
	"context"
	"os"
	"testing"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
)

// becomes waits until Running says what it should.
func (r *rig) becomes(running bool, when string) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); r.Running() != running; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: running is %t for ever", when, !running)
		}
	}
}

func TestRunning(t *testing.T) {
	r := newRig(t)
	if r.Running() {
		t.Error("nothing has been created, and it runs")
	}
	r.engine.on("create", func(context.Context) error {
		if !r.Running() {
			t.Error("does not run while a container is created")
		}
		return nil
	})
	r.create("c1")
	if !r.Running() {
		t.Error("does not run while init waits to be started")
	}
	r.start("c1", "")
	r.addExec("c1", "e1")
	r.start("c1", "e1")
	r.kill("c1", "e1", uint32(sigKill))
	r.wait("c1", "e1")
	if !r.Running() {
		t.Error("does not run while init does")
	}
	r.kill("c1", "", uint32(sigKill))
	r.wait("c1", "")
	r.becomes(false, "all have exited")
	if r.Idle() {
		t.Error("idle before the container is deleted")
	}
	r.engine.on("delete", func(context.Context) error {
		if !r.Running() {
			t.Error("does not run while a container is deleted")
		}
		return nil
	})
	r.delete("c1", "")
	r.becomes(false, "all is deleted")
}

// Output on its way is not to be lost by the shim's end.
func TestRunningUntilOutputEnds(t *testing.T) {
	r := newRig(t)
	var held *os.File
	r.engine.streams = func(f Files) { held = dup(t, f.Stdout) }
	request := createRequest(t, "c1")
	request.Stdout = "file://" + request.Bundle + "/log"
	if _, err := r.Create(context.Background(), request); err != nil {
		t.Fatal(err)
	}
	r.start("c1", "")
	r.kill("c1", "", uint32(sigKill))
	r.wait("c1", "")
	if !r.Running() {
		t.Error("does not run while output may come")
	}
	held.Close()
	r.becomes(false, "output has ended")
}

// A container that was never restored has nothing that runs.
func TestNotRunningBeforeRestore(t *testing.T) {
	r := newRig(t)
	r.createFrom("c1", t.TempDir())
	if r.Running() {
		t.Error("runs before it is restored")
	}
	if _, err := r.Delete(context.Background(), &taskv3.DeleteRequest{ID: "c1"}); err != nil {
		t.Fatal(err)
	}
}
