package task

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
)

// program makes an executable file on a PATH of its own.
func program(t *testing.T, name string) (path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, name)
	must(t, os.WriteFile(path, nil, 0o755))
	t.Setenv("PATH", dir)
	return path
}

func TestRuntimeBinary(t *testing.T) {
	path := program(t, "crun")
	for _, c := range []struct {
		node, option, want string
		refused            bool
	}{
		{"", "", "", false},
		{"", "crun", path, false},
		{"", path, path, false},
		{"crun", "", path, false},
		{"nonexistent", "crun", path, false},
		{"", "nonexistent", "", true},
		{"", "/nonexistent", "", true},
		{"", "./crun", "", true},
	} {
		node := Settings{Runtime: RuntimeSettings{Binary: c.node}}
		got, err := node.RuntimeBinary(marshal(t, &runcoptions.Options{BinaryName: c.option}))
		if got != c.want || errdefs.IsInvalidArgument(err) != c.refused || (err != nil) != c.refused {
			t.Errorf("node %q, option %q: %q, %v", c.node, c.option, got, err)
		}
	}
}

// closable is an engine that knows whether it has been closed.
type closable struct {
	*fakeEngine
	closed int
}

func (e *closable) Close() error { e.closed++; return nil }

// The first container decides for the engine of all.
func TestOneEngine(t *testing.T) {
	e := &closable{fakeEngine: newFakeEngine()}
	made := 0
	config := Config{Engine: newFakeEngine(), External: func(binary string) (Engine, error) {
		made++
		if binary == "/bad" {
			return nil, errFake
		}
		return e, nil
	}}
	for first, others := range map[string][]string{"": {"/a"}, "/a": {"", "/b"}} {
		s := NewService(config)
		for range 2 {
			if _, err := s.engine(first); err != nil {
				t.Error(err)
			}
		}
		for _, other := range others {
			if _, err := s.engine(other); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("%q after %q: %v", other, first, err)
			}
		}
		must(t, s.Close(t.Context()))
		must(t, s.Close(t.Context()))
		if _, err := s.engine(first); !errdefs.IsUnavailable(err) {
			t.Errorf("after the end: %v", err)
		}
	}
	if made != 1 || e.closed != 1 {
		t.Errorf("%d engines made, %d closed", made, e.closed)
	}
	s := NewService(config)
	if _, err := s.engine("/bad"); err == nil {
		t.Error("an engine that cannot be made")
	}
	if got, err := s.engine(""); err != nil || got != config.Engine {
		t.Errorf("it decided: %v, %v", got, err)
	}
	must(t, s.Close(t.Context()))
	config.External = nil
	if _, err := NewService(config).engine("/a"); !errdefs.IsNotImplemented(err) {
		t.Error(err)
	}
}

// What is left of a container is removed by the engine that made it.
func TestRemovers(t *testing.T) {
	var asked []string
	by := func(who string) Remover {
		return removerFunc(func(_ context.Context, root, id, bundle string) error {
			asked = append(asked, fmt.Sprintf("%s: %s in %s", who, id, root))
			return nil
		})
	}
	removers := Removers{Own: by("shim"), External: by}
	for _, binary := range []string{"", "/usr/bin/crun"} {
		dir := t.TempDir()
		must(t, writeOptions(dir, Options{Settings: Settings{Root: "/r", Runtime: RuntimeSettings{Binary: binary}}}))
		_, _, err := Cleanup(t.Context(), removers, "ns", "c", dir)
		must(t, err)
	}
	if want := []string{"shim: c in /r/ns", "/usr/bin/crun: c in /r/ns"}; !slices.Equal(asked, want) {
		t.Errorf("%q, want %q", asked, want)
	}
}

// An OCI runtime gets a root filesystem that it can see.
func TestRootfsForARuntime(t *testing.T) {
	dir := bundle(t, ownPIDs)
	spec, err := loadSpec(dir)
	must(t, err)
	target := filepath.Join(dir, rootfsDir)
	if why := (&Container{}).whyOnHost(Options{}, spec, target); why != "" {
		t.Errorf("without one: %s", why)
	}
	if why := (&Container{}).whyOnHost(Options{Settings: Settings{Runtime: RuntimeSettings{Binary: "/usr/bin/crun"}}}, spec, target); why == "" {
		t.Error("not attached on the host")
	}
	if why := (&Container{restored: true}).whyOnHost(Options{}, spec, target); why == "" {
		t.Error("not attached on the host to be restored")
	}
}
