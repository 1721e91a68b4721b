package rig

import (
	"strings"
	"testing"
)

// history makes events from words: "create", "start", "exit", "delete", "oom"
// of init, and "add/x", "run/x", "end/x" of exec x.
func history(words string) []Event {
	topics := map[string]string{
		"create": "create", "start": "start", "exit": "exit", "delete": "delete", "oom": "oom",
		"add": "exec-added", "run": "exec-started", "end": "exit", "paused": "paused", "resumed": "resumed",
		"checkpointed": "checkpointed",
	}
	var events []Event
	for word := range strings.FieldsSeq(words) {
		name, process, _ := strings.Cut(word, "/")
		events = append(events, Event{Topic: "/tasks/" + topics[name], Container: "c", Process: process, Pid: 7})
	}
	return events
}

func TestCheckComplete(t *testing.T) {
	for words, wantErr := range map[string]string{
		"create start exit delete":                          "",
		"create start paused resumed oom exit delete":       "",
		"create delete":                                     "",
		"create start checkpointed exit delete":             "",
		"create start exit delete create start exit delete": "",
		"create start exit checkpointed delete":             "in state \"exited\"",
		"create exit delete":                                "",
		"create start add/x run/x end/x exit delete":        "",
		"create start add/x exit delete":                    "",
		"create start add/x run/x exit end/x delete":        "before the exit of exec",
		"create start exit exit delete":                     "in state \"exited\"",
		"create start start exit delete":                    "in state \"started\"",
		"create exit start delete":                          "in state \"exited\"",
		"create start exit oom delete":                      "OOM after init's exit",
		"create start exit add/x delete":                    "exec added after init's exit",
		"create start add/x exit run/x end/x delete":        "exec started after init's exit",
		"create start add/x end/x run/x exit delete":        "in state \"added\"",
		"create start add/x run/x end/x end/x exit delete":  "in state \"exited\"",
		"create start exit":                                 "ends in state",
		"create start":                                      "ends in state",
		"start exit delete":                                 "in state \"unknown\"",
		"create start delete exit":                          "deleted in state",
		"create start exit paused delete":                   "in state \"exited\"",
		"create start add/x run/x run/x end/x exit delete":  "in state \"started\"",
		"create create start exit delete":                   "in state \"added\"",
		"create start add/x add/x run/x end/x exit delete":  "in state \"added\"",
		"create start add/x run/x add/y run/y end/x exit":   "before the exit of exec",
		"create start add/x run/x end/x exit delete delete": "deleted in state",
	} {
		err := CheckComplete(history(words))
		switch {
		case wantErr == "" && err != nil:
			t.Errorf("%s: %v", words, err)
		case wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)):
			t.Errorf("%s: got %v, want %q", words, err, wantErr)
		}
	}
}

func TestCheckCompleteNoticesAnotherPid(t *testing.T) {
	events := history("create start exit delete")
	events[2].Pid = 8
	if err := CheckComplete(events); err == nil {
		t.Error("an exit with another pid than the start's passed")
	}
}

func TestCensusDiff(t *testing.T) {
	before := Census{"process a": 1, "mount b": 2, "file d": 1, mountNamespaces: 2}
	if diff := before.Diff(Census{"mount b": 2, "file d": 1, mountNamespaces: 1}); diff != "" {
		t.Errorf("censuses that are equal but for a process that ended differ: %s", diff)
	}
	diff := before.Diff(Census{"process a": 2, "mount b": 3, "cgroup c": 1, mountNamespaces: 2})
	for _, line := range []string{"+1 cgroup c (1, was 0)", "+1 mount b (3, was 2)", "-1 file d (0, was 1)", "+1 process a (2, was 1)"} {
		if !strings.Contains(diff, line+"\n") {
			t.Errorf("diff lacks %q:\n%s", line, diff)
		}
	}
}

func TestCheckPattern(t *testing.T) {
	whole := make([]byte, 1000)
	for i := range whole {
		whole[i] = byte(i % patternPrime)
	}
	if err := CheckPattern(whole, len(whole)); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string][]byte{
		"short":  whole[:999],
		"hole":   append(append([]byte{}, whole[:100]...), whole[101:]...),
		"double": append(append([]byte{}, whole[:100]...), whole[99:999]...),
	} {
		if CheckPattern(bad, len(whole)) == nil {
			t.Errorf("%s output passed", name)
		}
	}
}

func TestShimBinary(t *testing.T) {
	for runtime, name := range map[string]string{
		"io.containerd.runc.v2": "containerd-shim-runc-v2",
		"io.containerd.numa.v1": "containerd-shim-numa-v1",
	} {
		if got := ShimBinary(runtime); got != name {
			t.Errorf("%s: %s, want %s", runtime, got, name)
		}
	}
}
