package shim

import (
	"bytes"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestCommandLine(t *testing.T) {
	r := newRig(t)
	bundle := r.bundle("c1", nil)
	tests := map[string]struct {
		args []string
		code int
		out  string
	}{
		"version":           {[]string{"-v"}, 0, "containerd-shim-test-v1:\n  Version:    1.2.3\n  Revision:   abc\n  Go version: go"},
		"long version":      {[]string{"-version"}, 0, "\n  Engine:     none\n"},
		"usage":             {[]string{"-h"}, 0, "usage: containerd-shim-test-v1"},
		"unknown flag":      {[]string{"-frobnicate"}, 1, "flag provided but not defined: -frobnicate"},
		"unknown command":   {r.flags("c1", "stop"), 1, `unknown command "stop"`},
		"two commands":      {r.flags("c1", "start", "delete"), 1, `unexpected argument "delete"`},
		"no namespace":      {[]string{"-id", "c1", "-address", "/a", "start"}, 1, "-namespace: missing"},
		"no id":             {[]string{"-namespace", "ns", "-address", "/a", "start"}, 1, "-id: missing"},
		"no address":        {[]string{"-namespace", "ns", "-id", "c1", "start"}, 1, "-address: missing"},
		"bad id":            {r.flags("../c1", "delete"), 1, `-id: "../c1" is not a containerd identifier`},
		"bad namespace":     {[]string{"-namespace", "a/b", "-id", "c1", "delete"}, 1, "-namespace:"},
		"daemon by hand":    {r.flags("c1"), 1, "descriptor 3 is not a listening socket"},
		"socket path limit": {r.flags("c1", "-socket", "/"+strings.Repeat("x", 106)), 1, "has 107 bytes"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := r.shim(bundle, tc.args...)
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != tc.code || !strings.Contains(string(out), tc.out) {
				t.Errorf("exit %d, %q; want %d, %q", got, out, tc.code, tc.out)
			}
		})
	}
}

func TestInfo(t *testing.T) {
	r := newRig(t)
	for name, stdin := range map[string][]byte{"options": legacyOptions(t, &options.Options{Root: "/r"}), "nothing": nil} {
		cmd := r.shim(r.dir, "-info")
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		want := encode(t, &anypb.Any{})
		if stdin != nil {
			want = stdin
		}
		if !bytes.Contains(out, []byte(testRuntime)) || !bytes.Contains(out, want) {
			t.Errorf("%s: %q", name, out)
		}
	}
	cmd := r.shim(r.dir, "-info")
	cmd.Stdin = strings.NewReader("\xff\xff")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "parse runtime options") {
		t.Errorf("garbage: %v, %q", err, out)
	}
}
