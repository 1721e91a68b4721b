package rig

import (
	"errors"
	"fmt"
)

// process states, as told by events alone.
type eventState int

const (
	unknown eventState = iota
	added              // created, or exec added
	started
	exited
	deleted
)

func (s eventState) String() string {
	return [...]string{"unknown", "added", "started", "exited", "deleted"}[s]
}

// CheckComplete holds the events of one container that is gone against
// containerd's contract (docs/runtime-v2.md, "Events"): create, start, exit,
// delete of init; added, started, exit of each exec; exactly one start and one
// exit for each process that started; init's exit after those of its execs; no
// OOM after init's exit.
func CheckComplete(events []Event) error {
	states, err := replay(events)
	errs := []error{err}
	for process, state := range states {
		if state == started || process == "" && state != deleted {
			errs = append(errs, fmt.Errorf("process %q ends in state %q", process, state))
		}
	}
	return errors.Join(errs...)
}

// replay runs the events through each process's states and returns where they
// end.
func replay(events []Event) (map[string]eventState, error) {
	var errs []error
	fail := func(e Event, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", e, fmt.Sprintf(format, args...)))
	}
	states := map[string]eventState{}
	pids := map[string]uint32{}
	step := func(e Event, from, to eventState) {
		if states[e.Process] != from {
			fail(e, "in state %q, want %q", states[e.Process], from)
		}
		states[e.Process] = to
	}
	for _, e := range events {
		switch e.Topic {
		case "/tasks/create", "/tasks/exec-added":
			if e.Process != "" && states[e.Process] == exited {
				states[e.Process] = unknown // deleted without an event: the id is free again
			}
			if e.Process != "" && states[""] >= exited {
				fail(e, "exec added after init's exit")
			}
			if e.Process == "" && states[""] == deleted {
				states[""] = unknown // a new task of the container
			}
			step(e, unknown, added)
		case "/tasks/start", "/tasks/exec-started":
			if e.Process != "" && states[""] >= exited {
				fail(e, "exec started after init's exit")
			}
			step(e, added, started)
			pids[e.Process] = e.Pid
		case "/tasks/exit":
			checkExit(e, states, pids, fail, step)
		case "/tasks/oom":
			if states[""] >= exited {
				fail(e, "OOM after init's exit")
			}
		case "/tasks/delete":
			if e.Process == "" && states[""] != exited && states[""] != added {
				fail(e, "deleted in state %q", states[""])
			}
			states[e.Process] = deleted
		case "/tasks/paused", "/tasks/resumed", "/tasks/checkpointed":
			if states[""] != started && states[""] != added {
				fail(e, "in state %q", states[""])
			}
		}
	}
	return states, errors.Join(errs...)
}

func checkExit(e Event, states map[string]eventState, pids map[string]uint32, fail func(Event, string, ...any), step func(Event, eventState, eventState)) {
	if e.Process == "" {
		for process, state := range states {
			if process != "" && state == started {
				fail(e, "before the exit of exec %q", process)
			}
		}
	}
	if states[e.Process] == started && pids[e.Process] != e.Pid {
		fail(e, "started with pid %d", pids[e.Process])
	}
	// A created init that is killed before its start exits without one.
	if e.Process == "" && states[""] == added {
		states[""] = exited
		return
	}
	step(e, started, exited)
}
