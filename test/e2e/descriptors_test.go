package e2e

import (
	"strings"
	"testing"
)

// TestDescriptors lists what processes of a container inherit: their standard
// streams, and no mount, socket or pidfd of the shim or of libcontainer, by
// which a process could reach the host.
func TestDescriptors(t *testing.T) {
	script := []string{"/bin/sh", "-c", "ls -l /proc/self/fd; readlink /proc/self/cwd"}
	for name, opts := range map[string][]option{
		"pipes":                    nil,
		"terminal":                 {withTerminal()},
		"user namespace":           {withUserNamespace(mappedRoot)},
		"user namespace, terminal": {withUserNamespace(mappedRoot), withTerminal()},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			opts := append(opts, withImage(s.layered))
			c := s.run(script, opts...)
			want(t, "exit status", c.finish(), 0)
			checkDescriptors(t, c.stdout.String())

			host := s.run(idle, opts...)
			p := host.exec("ls", script, opts...)
			want(t, "exit status of exec", p.status(), 0)
			p.delete()
			checkDescriptors(t, p.stdout.String())
			host.stop()
		})
	}
}

// checkDescriptors reads a list by ls -l, and a working directory.
func checkDescriptors(t *testing.T, out string) {
	t.Helper()
	var numbers []string
	var last string
	for line := range strings.Lines(out) {
		last = strings.TrimSpace(line)
		link, file, ok := strings.Cut(last, " -> ")
		if !ok {
			continue
		}
		f := strings.Fields(link)
		if strings.HasPrefix(file, "/proc/") {
			continue // that of ls itself
		}
		numbers = append(numbers, f[len(f)-1])
	}
	want(t, "descriptors, of\n"+out, strings.Join(numbers, " "), "0 1 2")
	want(t, "working directory", last, "/")
}
