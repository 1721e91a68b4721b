package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/test/rig"
)

// inProcess is the engine in the shim itself; the others are OCI runtimes.
const inProcess = "native"

var engineFlag = flag.String("engine", inProcess, "what makes our shim's containers: native, runc or crun")

// errNoEngine says that the OCI runtime to test with is not there.
var errNoEngine = errors.New("the OCI runtime is not installed (make test-deps)")

// detached reports whether root filesystems are attached in the container
// only: an OCI runtime takes a path on the host.
func detached() bool { return ours() && *engineFlag == inProcess }

// crun reports whether crun is the engine.
func crun() bool { return *engineFlag == "crun" }

// setEngine has the node's settings name the engine, so that every test runs
// on it, whatever options it gives.
func setEngine(m *rig.Machine) error {
	var binary string
	switch {
	case *engineFlag == inProcess:
		return nil
	case *engineFlag == "runc":
		binary = m.Runc
	case crun():
		path, err := exec.LookPath("crun")
		if err != nil {
			return fmt.Errorf("%w: %w", errNoEngine, err)
		}
		if binary, err = oldSpecs(m.Dir, path); err != nil {
			return err
		}
		if err := hideHybrid(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("engine %q is not native, runc or crun", *engineFlag)
	}
	etc := filepath.Join(m.Dir, "engine")
	if err := errors.Join(os.Mkdir(etc, 0o755), mountTmpfs(etc), privateEtc(etc)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(nodeSettings), 0o755); err != nil {
		return err
	}
	return os.WriteFile(nodeSettings, fmt.Appendf(nil, "runtime.binary = %q\n", binary), 0o600)
}

// oldSpecs returns the program to run for the crun at path. That of Debian 12
// takes no spec of a version other than 1.0, and containerd writes newer ones:
// a script lowers the version, which nothing else in the specs depends on.
func oldSpecs(dir, path string) (string, error) {
	version, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", path, err)
	}
	if !strings.Contains(string(version), "\nspec: 1.0.0\n") || !strings.HasPrefix(string(version), "crun version 1.8") {
		return path, nil
	}
	script := fmt.Sprintf(`#!/bin/sh
case " $* " in
*" create "*) sed -i 's/"ociVersion":"[^"]*"/"ociVersion":"1.0.2"/' config.json ;;
esac
exec %s "$@"
`, path)
	binary := filepath.Join(dir, "crun")
	return binary, os.WriteFile(binary, []byte(script), 0o755)
}

// hideHybrid hides the second version of cgroups where it is mounted beside
// the first: crun refuses to run if it has controllers.
func hideHybrid() error {
	const hybrid = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(filepath.Join(hybrid, "cgroup.controllers")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := unix.Mount("none", hybrid, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("hide %s: %w", hybrid, err)
	}
	return nil
}

// privateEtc puts an overlay on /etc, with dir for what is written there, that
// the host does not see. dir is on a file system that may be an upper layer.
func privateEtc(dir string) error {
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("make a private /etc: %w", err)
	}
	return nil
}

// TestEngineOfAPod has a pod whose containers are made by an OCI runtime that
// the options name: one that names another, or none, is refused.
func TestEngineOfAPod(t *testing.T) {
	if !detached() {
		skip(t, "the node's settings name an engine already")
	}
	s := begin(t)
	sandbox := s.newID()
	runc := withSettings(fmt.Sprintf("runtime.binary = %q", s.Runc))
	in := withAnnotation(sandboxAnnotation, sandbox)
	pause := s.run(idle, withID(sandbox), in, runc)
	c := s.run([]string{"/bin/sh", "-c", "exit 6"}, in, runc)
	want(t, "exit status", c.finish(), 6)
	for toml, says := range map[string]string{
		"":                                   "made by " + s.Runc,
		"runtime.binary = '/bin/true'":       "and not by /bin/true",
		"runtime.binary = 'no-such-runtime'": "no-such-runtime",
	} {
		if _, err := s.tryCreate(idle, in, withSettings(toml)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("with %q: error %v, want one that says %q", toml, err, says)
		}
	}
	pause.stop()
}
