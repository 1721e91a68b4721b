package task

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"
)

// RuntimeSettings say what makes the containers.
type RuntimeSettings struct {
	// Binary is an OCI runtime: an absolute path, or a name on the PATH of
	// containerd. Empty: the shim itself.
	Binary string `toml:"binary"`
}

// check refuses a Binary that would mean one thing in one directory and
// another in the next.
func (r RuntimeSettings) check() error {
	if strings.Contains(r.Binary, "/") && !filepath.IsAbs(r.Binary) {
		return fmt.Errorf("%q is neither a name nor an absolute path", r.Binary)
	}
	return nil
}

// resolve replaces a name by the path of the program.
func (r RuntimeSettings) resolve() (RuntimeSettings, error) {
	if r.Binary == "" {
		return r, nil
	}
	path, err := exec.LookPath(r.Binary)
	if err != nil {
		return RuntimeSettings{}, invalid("OCI runtime %q: %v", r.Binary, err)
	}
	return RuntimeSettings{Binary: filepath.Clean(path)}, nil
}

// RuntimeBinary is the path of the OCI runtime that s and a runtime's options
// name, "" if it is the shim itself.
func (s Settings) RuntimeBinary(options *anypb.Any) (string, error) {
	o, err := s.with(options)
	if err != nil {
		return "", err
	}
	r, err := o.Runtime.resolve()
	return r.Binary, err
}

// engine is the engine for a container whose runtime is binary, "" for the
// shim itself. The first container decides it for all of a shim: an engine
// makes the process what it needs to be, and a pod has one runtime.
func (s *Service) engine(binary string) (Engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, fmt.Errorf("the shim is ending: %w", errdefs.ErrUnavailable)
	case s.chosen != nil && s.chosenBinary == binary:
		return s.chosen, nil
	case s.chosen != nil:
		return nil, fmt.Errorf("this shim's containers are made by %s, and not by %s: %w",
			runtimeName(s.chosenBinary), runtimeName(binary), errdefs.ErrFailedPrecondition)
	case binary == "":
		s.chosen = s.Engine
		return s.chosen, nil
	case s.External == nil:
		return nil, fmt.Errorf("OCI runtime %s: %w", binary, errdefs.ErrNotImplemented)
	}
	e, err := s.External(binary)
	if err != nil {
		return nil, err
	}
	s.chosen, s.chosenBinary = e, binary
	return e, nil
}

// closeEngine ends the engine if it is one that has an end.
func (s *Service) closeEngine() error {
	s.mu.Lock()
	e := s.chosen
	s.chosen = nil
	s.mu.Unlock()
	if c, ok := e.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func runtimeName(binary string) string {
	if binary == "" {
		return "the shim itself"
	}
	return binary
}

// Removers tell who removes what is left of a container: the one of its
// engine.
type Removers struct {
	// Own is of the engine in the shim itself.
	Own Remover
	// External makes the one of an OCI runtime, of which it gets the path.
	External func(binary string) Remover
}

// Remove has the engine that made the container remove it.
func (r Removers) Remove(ctx context.Context, root, id, bundle string) error {
	if binary := readOptions(bundle).Binary; binary != "" {
		return r.External(binary).Remove(ctx, root, id, bundle)
	}
	return r.Own.Remove(ctx, root, id, bundle)
}
