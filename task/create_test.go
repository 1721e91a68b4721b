package task

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
)

func TestProcessWithoutItsTerminalIsEnded(t *testing.T) {
	noLeak(t)
	r := newRig(t)
	request := createRequest(t, "c")
	request.Terminal = true // the fake engine closes its end without sending one
	if _, err := r.Create(t.Context(), request); err == nil || !strings.Contains(err.Error(), "terminal") {
		t.Errorf("create: %v", err)
	}
	i := r.engine.last()
	if !i.init.gone() || !i.deleted || !r.Idle() {
		t.Errorf("left behind: init gone %v, deleted %v", i.init.gone(), i.deleted)
	}
	r.engine.waitedOnce(t)
	wantEvents(t, r)

	r.run("d")
	exec := execRequest("d", "e")
	exec.Terminal = true
	_, err := r.Exec(t.Context(), exec)
	must(t, err)
	if _, err := r.Start(t.Context(), &taskv3.StartRequest{ID: "d", ExecID: "e"}); err == nil {
		t.Error("exec started without its terminal")
	}
	d := r.engine.last()
	if !d.lastExec().gone() {
		t.Error("the exec was left behind")
	}
	d.init.exit(0)
	r.wait("d", "")
	r.delete("d", "")
	r.engine.waitedOnce(t)
	checkOrder(t, r.log())
}

func TestCreateFails(t *testing.T) {
	fifo := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "fifo")
		makeFIFO(t, path)
		return path
	}
	for name, spoil := range map[string]func(*testing.T, *rig, *taskv3.CreateTaskRequest){
		"no bundle": func(_ *testing.T, _ *rig, q *taskv3.CreateTaskRequest) { q.Bundle = "/nonexistent" },
		"spec":      func(t *testing.T, _ *rig, q *taskv3.CreateTaskRequest) { q.Bundle = bundle(t, "{}") },
		"options":   func(_ *testing.T, _ *rig, q *taskv3.CreateTaskRequest) { q.Options = anyOf("no.such.Type", nil) },
		"stdin":     func(_ *testing.T, _ *rig, q *taskv3.CreateTaskRequest) { q.Stdin = "/nonexistent" },
		"stdout":    func(_ *testing.T, _ *rig, q *taskv3.CreateTaskRequest) { q.Stdout = "/nonexistent" },
		"stderr": func(_ *testing.T, _ *rig, q *taskv3.CreateTaskRequest) {
			q.Stdout, q.Stderr = "/dev/null", "/nonexistent"
		},
		"scheme": func(_ *testing.T, _ *rig, q *taskv3.CreateTaskRequest) { q.Stdout = "ttrpc+unix:///x" },
		"logger": func(_ *testing.T, _ *rig, q *taskv3.CreateTaskRequest) { q.Stdout = "binary:///nonexistent" },
		"engine": func(_ *testing.T, r *rig, q *taskv3.CreateTaskRequest) {
			q.Stdout = "/dev/null"
			r.engine.on("create", failing)
		},
		"no terminal": func(_ *testing.T, _ *rig, q *taskv3.CreateTaskRequest) { q.Terminal = true },
		"init.pid": func(t *testing.T, _ *rig, q *taskv3.CreateTaskRequest) {
			must(t, os.Mkdir(filepath.Join(q.Bundle, initPidFile), 0o700))
		},
		"options.json": func(t *testing.T, _ *rig, q *taskv3.CreateTaskRequest) {
			must(t, os.Mkdir(filepath.Join(q.Bundle, optionsFile), 0o700))
		},
		"init.pid with streams": func(t *testing.T, _ *rig, q *taskv3.CreateTaskRequest) {
			must(t, os.Mkdir(filepath.Join(q.Bundle, initPidFile), 0o700))
			q.Stdin, q.Stdout, q.Stderr = fifo(t), "file://"+filepath.Join(t.TempDir(), "d", "log"), ""
		},
		"nobody reads": func(t *testing.T, _ *rig, q *taskv3.CreateTaskRequest) { q.Stdout = fifo(t) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			request := createRequest(t, "c")
			spoil(t, r, request)
			noLeak(t)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if name != "nobody reads" {
				cancel()
				ctx, cancel = context.WithCancel(t.Context())
			}
			defer cancel()
			if _, err := r.Create(ctx, request); err == nil {
				t.Fatal("created")
			}
			for _, i := range r.engine.made {
				if !i.init.gone() || !i.deleted {
					t.Error("the engine's container is left")
				}
			}
			r.engine.waitedOnce(t)
			wantEvents(t, r)
			if !r.Idle() {
				t.Error("the id is taken")
			}
			left, err := filepath.Glob(filepath.Join(request.Bundle, ".*.*"))
			must(t, err)
			if len(left) > 0 {
				t.Errorf("temporary files left: %q", left)
			}
			// The same id can be created after that.
			r.engine.on("create", nil)
			r.create("c")
			r.delete("c", "")
		})
	}
}

func TestExitFileComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		request := createRequest(t, "c")
		_, err := r.Create(t.Context(), request)
		must(t, err)
		i := r.engine.last()
		if pid := readInitPid(request.Bundle); pid != i.init.pid {
			t.Errorf("init.pid %d, is %d", pid, i.init.pid)
		}
		r.start("c", "")
		i.init.exit(7)
		r.wait("c", "")
		pid, exit, ok, err := readExit(request.Bundle)
		if err != nil || !ok || pid != i.init.pid || exit.Status != 7 {
			t.Errorf("%d %v %v %v", pid, exit, ok, err)
		}
		r.delete("c", "")
	})
}
