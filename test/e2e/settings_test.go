package e2e

import (
	"strings"
	"testing"

	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"

	"containerd-shim-numa-v1/test/rig"
)

// withSettings gives the runtime its settings inline, as CRI does with a
// runtime's options table.
func withSettings(toml string) option {
	return func(c *settings) { c.runtime = &runtimeoptions.Options{ConfigBody: []byte(toml)} }
}

// TestRootfsSettings runs the many-layered image in every way of mounting it
// that can be set, plain and idmapped: the container is the same in each.
func TestRootfsSettings(t *testing.T) {
	if !ours() {
		skip(t, "the settings are this project's")
	}
	for name, toml := range map[string]string{
		"descriptors":  "rootfs.tier = 'descriptors'",
		"names":        "rootfs.tier = 'names'",
		"options":      "rootfs.tier = 'options'",
		"host tier":    "rootfs.tier = 'host'",
		"attach":       "rootfs.attach = 'host'",
		"shared base":  "rootfs.shared-base = true",
		"base, attach": "[rootfs]\nattach = 'host'\nshared-base = true",
	} {
		onHost := strings.Contains(toml, "'host'") || !detached()
		for _, kind := range []struct {
			name string
			opts []option
		}{
			{"plain", nil},
			{"user namespace", []option{withUserNamespace(mappedRoot)}},
		} {
			t.Run(name+", "+kind.name, func(t *testing.T) {
				s := begin(t)
				before := len(rig.MountTable())
				c := s.run([]string{"/bin/sh", "-c", "/payload tree /data; echo new > /data/new; /payload wait"},
					append(kind.opts, withImage(s.layered), withSettings(toml))...)
				c.awaitOutput("ready")
				more := len(rig.MountTable()) - before
				if !onHost {
					want(t, "more entries in the host's mount table", more, 0)
				} else if more < 1 {
					t.Errorf("the root filesystem is not attached on the host")
				}
				want(t, "tree inside", strings.TrimSuffix(c.stdout.String(), "ready\n"), s.tree.String())
				c.stop()
				want(t, "more entries in the host's mount table afterwards", len(rig.MountTable())-before, 0)
			})
		}
	}
}

// TestSharedBaseInAPod runs the containers of a pod on one base.
func TestSharedBaseInAPod(t *testing.T) {
	if !ours() {
		skip(t, "the setting is this project's")
	}
	s := begin(t)
	sandbox := s.newID()
	base := withSettings("rootfs.shared-base = true")
	pause := s.run(idle, withID(sandbox), base, withAnnotation(sandboxAnnotation, sandbox))
	for range 3 {
		c := s.run([]string{"/payload", "tree", "/data"}, base, withImage(s.layered), withAnnotation(sandboxAnnotation, sandbox))
		want(t, "exit status", c.finish(), 0)
		want(t, "tree inside", c.stdout.String(), s.tree.String())
	}
	pause.stop()
}

// TestWrongSettings sees that a setting that cannot be is refused by name.
func TestWrongSettings(t *testing.T) {
	if !ours() {
		skip(t, "the settings are this project's")
	}
	for toml, says := range map[string]string{
		"rootfs.attach = 'nowhere'": "nowhere",
		"rootfs.tier = 'best'":      "best",
		"rootfs.tire = 'auto'":      "rootfs.tire",
		"root = 'relative'":         "relative",
		"not toml":                  "config_body",
	} {
		t.Run(toml, func(t *testing.T) {
			s := begin(t)
			if _, err := s.tryCreate(idle, withSettings(toml)); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("error %v, want one that says %q", err, says)
			}
		})
	}
}
