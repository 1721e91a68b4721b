package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// idle is a container's init that does nothing until told to end.
var idle = []string{"/payload", "wait"}

func TestExec(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	p := c.exec("one", []string{"/bin/sh", "-c", "echo out; echo err >&2; id -u; exit 5"}, withUID(1000))
	want(t, "exit status", p.status(), 5)
	want(t, "status by Delete", p.delete().ExitCode(), 5)
	want(t, "stdout", p.stdout.String(), "out\n1000\n")
	want(t, "stderr", p.stderr.String(), "err\n")
	event, err := s.events.Await(bound, "/tasks/exit", c.ID(), "one")
	s.must(err)
	want(t, "status by event", event.Status, 5)
	// The id is free again.
	again := c.exec("one", []string{"/bin/true"})
	want(t, "exit status of a second exec of that id", again.status(), 0)
	again.delete()
	c.stop()
}

// TestAllExitCodes runs every status there is through one container.
func TestAllExitCodes(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	for code := range uint32(256) {
		p := c.exec(fmt.Sprintf("exit-%d", code), []string{"/payload", "exit", fmt.Sprint(code)})
		if got := p.status(); got != code {
			t.Errorf("exec that exits with %d reports %d", code, got)
		}
		p.delete()
	}
	c.stop()
}

func TestExecEndsBySignal(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGTERM} {
		p := c.exec(fmt.Sprintf("by-itself-%d", sig), []string{"/bin/sh", "-c", fmt.Sprintf("kill -%d $$; sleep 1000", sig)})
		want(t, "status of a process that sent itself "+sig.String(), p.status(), 128+uint32(sig))
		p.delete()
		p = c.exec(fmt.Sprintf("by-kill-%d", sig), []string{"/bin/sh", "-c", "echo ready; exec sleep 1000"})
		p.awaitOutput("ready") // else the signal may meet the runtime's own program
		s.must(p.Kill(s.ctx, sig))
		want(t, "status of a process killed by "+sig.String(), p.status(), 128+uint32(sig))
		p.delete()
	}
	c.stop()
}

func TestExecIDIsTakenUntilDeleted(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	p := c.exec("same", []string{"/bin/sleep", "1000"})
	if _, err := c.tryExec("same", []string{"/bin/true"}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second exec of a taken id: %v, want already exists", err)
	}
	s.must(p.Kill(s.ctx, syscall.SIGKILL))
	p.status()
	p.delete()
	c.stop()
}

func TestExecOfMissingProgram(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	p := c.execCreate("missing", []string{"/no/such/program"})
	if err := p.Start(s.ctx); err == nil {
		t.Error("start of a missing program succeeded")
	}
	p.delete()
	ok := c.exec("after", []string{"/bin/true"})
	want(t, "exit status after a failed exec", ok.status(), 0)
	ok.delete()
	c.stop()
}

// TestExecsEndWithInit kills init under running execs: each of them exits,
// before init as the scene's check of events sees, and all are deletable.
func TestExecsEndWithInit(t *testing.T) {
	s := begin(t)
	c := s.run(idle)
	var execs []*process
	for i := range 5 {
		execs = append(execs, c.exec(fmt.Sprintf("e%d", i), []string{"/bin/sleep", "1000"}))
	}
	s.must(c.Kill(s.ctx, syscall.SIGKILL))
	want(t, "exit status of init", c.status(), 137)
	for _, p := range execs {
		want(t, "exit status of "+p.ID(), p.status(), 137)
		p.delete()
	}
	c.remove()
}

// TestExecAgainstDyingInit races starts of execs with init's death. Each
// start either fails or is followed by its exit; nothing hangs.
func TestExecAgainstDyingInit(t *testing.T) {
	s := begin(t)
	for round := range 5 {
		c := s.run(idle)
		var execs []*process
		for i := range 8 {
			execs = append(execs, c.execCreate(fmt.Sprintf("e%d", i), []string{"/bin/sleep", "1000"}))
		}
		started := make(chan *process, len(execs))
		for _, p := range execs {
			go func() {
				if p.Start(s.ctx) != nil {
					p = nil
				}
				started <- p
			}()
		}
		time.Sleep(time.Duration(round) * 10 * time.Millisecond)
		s.must(c.Kill(s.ctx, syscall.SIGKILL))
		want(t, "exit status of init", c.status(), 137)
		for range execs {
			select {
			case p := <-started:
				if p != nil {
					p.status()
				}
			case <-timeout():
				t.Fatal("the start of an exec hangs after init died")
			}
		}
		for _, p := range execs {
			p.delete()
		}
		c.remove()
	}
}
