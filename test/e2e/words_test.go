package e2e

import (
	"regexp"
	"testing"
)

// TestWordsOfFailedStarts compares what is said of programs that cannot be run
// with what runc says, in which kubelet and Docker look for the reason. The
// same suite passes with the runc shim.
func TestWordsOfFailedStarts(t *testing.T) {
	if crun() {
		skip(t, "crun has words of its own")
	}
	for name, c := range map[string]struct{ program, reason string }{
		"missing path":    {"/no/such/program", `stat /no/such/program: no such file or directory`},
		"missing command": {"nonexistent", `executable file not found in \$PATH`},
		"not executable":  {"/etc/passwd", `permission denied`},
		"a directory":     {"/etc", `is a directory`},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			words := `unable to start container process: (error during container init: )?exec: "` + c.program + `": ` + c.reason
			_, err := s.tryCreate([]string{c.program})
			wantError(t, "create", err, `OCI runtime create failed: runc create failed: `+words)

			box := s.run(idle)
			p := box.execCreate("e", []string{c.program})
			wantError(t, "start of exec", p.Start(s.ctx), `OCI runtime exec failed: exec failed: `+words)
			p.delete()
			box.stop()
		})
	}
}

func wantError(t *testing.T, what string, err error, pattern string) {
	t.Helper()
	if err == nil || !regexp.MustCompile(pattern).MatchString(err.Error()) {
		t.Errorf("%s: %v, want %s", what, err, pattern)
	}
}
