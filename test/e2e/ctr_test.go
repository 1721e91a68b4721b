package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"containerd-shim-numa-v1/test/rig"
)

// ctr runs a command of containerd's client that must succeed.
func (s *scene) ctr(args ...string) string {
	s.t.Helper()
	r := s.daemon.RunCtr(s.ctx, args...)
	if r.Err != nil {
		s.t.Fatalf("ctr %s: %v\n%s%s", strings.Join(args, " "), r.Err, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

func TestCtrRun(t *testing.T) {
	s := begin(t)
	out := s.ctr("run", "--rm", "--runtime", *runtimeFlag, s.image.Name(), s.newID(), "/bin/sh", "-c", "echo hello; id -u")
	want(t, "output", out, "hello\n0\n")
	r := s.daemon.RunCtr(s.ctx, "run", "--rm", "--runtime", *runtimeFlag, s.image.Name(), s.newID(), "/payload", "exit", "42")
	want(t, "exit status of ctr", r.Code, 42)
}

func TestCtrRunOptions(t *testing.T) {
	s := begin(t)
	dir := t.TempDir()
	out := s.ctr("run", "--rm", "--runtime", *runtimeFlag,
		"--env", "A=1", "--cwd", "/data", "--hostname", "named", "--user", "1000:1000", "--read-only",
		"--memory-limit", fmt.Sprint(64*mib), "--mount", "type=bind,src="+dir+",dst=/tmp,options=rbind:ro",
		s.image.Name(), s.newID(), "/bin/sh", "-c", "echo $A; hostname; id -u; touch x 2>&1; touch /tmp/y 2>&1; true")
	want(t, "output", out, "1\nnamed\n1000\ntouch: x: Read-only file system\ntouch: /tmp/y: Read-only file system\n")
}

// TestCtrLife is a container's life by commands.
func TestCtrLife(t *testing.T) {
	s := begin(t)
	id := s.newID()
	s.ctr("run", "-d", "--runtime", *runtimeFlag, s.image.Name(), id, "/payload", "wait", "3")
	status := func(expected string) {
		t.Helper()
		var line string
		if !rig.Eventually(bound, func() bool {
			for line = range strings.Lines(s.ctr("tasks", "ls")) {
				if strings.HasPrefix(line, id+" ") {
					return strings.HasSuffix(strings.TrimSpace(line), expected)
				}
			}
			return false
		}) {
			t.Errorf("ctr tasks ls says %q, want %s", line, expected)
		}
	}
	status("RUNNING")
	want(t, "output of exec", s.ctr("tasks", "exec", "--exec-id", "e", id, "/bin/echo", "hello"), "hello\n")
	r := s.daemon.RunCtr(s.ctx, "tasks", "exec", "--exec-id", "e", id, "/payload", "exit", "17")
	want(t, "exit status of exec", r.Code, 17)
	if ps := s.ctr("tasks", "ps", id); strings.Count(ps, "\n") != 2 {
		t.Errorf("ctr tasks ps lists other than init:\n%s", ps)
	}
	s.ctr("tasks", "pause", id)
	status("PAUSED")
	s.ctr("tasks", "resume", id)
	status("RUNNING")
	s.ctr("tasks", "kill", "--signal", "SIGTERM", id)
	status("STOPPED")
	s.ctr("tasks", "delete", id)
	s.ctr("containers", "delete", id)
}

// TestCtrStdin pipes into a container. The input ends only after the container
// has echoed it: ctr forgets an end that comes before its task is made.
func TestCtrStdin(t *testing.T) {
	s := begin(t)
	ctx, cancel := context.WithTimeout(s.ctx, bound)
	defer cancel()
	cmd := s.daemon.Ctr(ctx, "run", "--rm", "--runtime", *runtimeFlag, s.image.Name(), s.newID(), "/payload", "cat")
	in, err := cmd.StdinPipe()
	s.must(err)
	var out buffer
	cmd.Stdout = &out
	s.must(cmd.Start())
	in.Write([]byte("piped"))
	if !rig.Eventually(bound, func() bool { return out.String() == "piped" }) {
		t.Errorf("the container echoes %q", out.String())
	}
	in.Close()
	s.must(cmd.Wait())
	want(t, "output", out.String(), "pipedEOF after 5\n")
}
