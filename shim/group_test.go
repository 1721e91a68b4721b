package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestValidateID(t *testing.T) {
	for id, valid := range map[string]bool{
		"a": true, "k8s.io": true, "a-b_c.D9": true, strings.Repeat("x", 76): true,
		"": false, strings.Repeat("x", 77): false, "-a": false, "a-": false, "a--b": false, "a.-b": false,
		"a/b": false, "..": false, "a b": false, "ä": false, "a\x00": false,
	} {
		if err := validateID(id); (err == nil) != valid {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestGroupOf(t *testing.T) {
	tests := map[string]struct{ config, want, err string }{
		"no annotations": {`{}`, "c1", ""},
		"sandbox":        {`{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}`, "pod", ""},
		"both":           {`{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g r"}}`, "g r", ""},
		"empty":          {`{"annotations":{"io.containerd.runc.v2.group":""}}`, "c1", ""},
		"other things":   {`{"process":{"args":["io.kubernetes.cri.sandbox-id"]},"annotations":{"x":"y"}}`, "c1", ""},
		"a way out":      {`{"annotations":{"io.containerd.runc.v2.group":"../other/pod"}}`, "", "is not a group id"},
		"dots":           {`{"annotations":{"io.containerd.runc.v2.group":".."}}`, "", "is not a group id"},
		"torn":           {`{"annotations":`, "", "parse config.json"},
		"of wrong type":  {`{"annotations":[]}`, "", "parse config.json"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, configName), []byte(tc.config), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := groupOf(dir, "c1")
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Fatalf("group %q, %v; want %q", got, err, tc.want)
			}
		})
	}
	if _, err := groupOf(t.TempDir(), "c1"); !os.IsNotExist(err) && !strings.Contains(err.Error(), "no such file") {
		t.Fatalf("without config.json: %v", err)
	}
}
