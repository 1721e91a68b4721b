package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// suites have the kernels and the QEMU. A series of kernels lives in one or
// two of them; together they reach from 6.1 to the newest backport.
var suites = []string{"bookworm", "trixie", "trixie-backports"}

// qemuSuite has a QEMU whose multi-threaded TCG is reliable: bookworm's 7.2
// loses one boot in twenty of kernels from 6.12 on.
const qemuSuite = "trixie"

// archiveKeyring is where Debian's package debian-archive-keyring has it.
const archiveKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// apt is a private apt root: its own sources, package lists and downloads,
// and a dpkg status that knows of no package. It keeps the machine's apt.conf,
// so proxies and access rules are those of the machine.
type apt struct {
	dir string
}

// openApt makes the root in dir and fetches the package lists.
func openApt(ctx context.Context, dir string) (*apt, error) {
	mirror, err := machineMirror("/etc/apt", "/etc/os-release")
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	var sources strings.Builder
	for _, suite := range suites {
		fmt.Fprintf(&sources, "deb [signed-by=%s] %s %s main\n", archiveKeyring, mirror, suite)
	}
	a := &apt{dir: dir}
	for name, content := range map[string]string{"sources.list": sources.String(), "state/status": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	_, err = a.run(ctx, dir, "apt-get", "update")
	return a, err
}

// run runs an apt program on the private root, in the directory dir, and
// returns what it prints.
func (a *apt) run(ctx context.Context, dir, program string, args ...string) (string, error) {
	options := []string{
		"-q",
		"-o", "Dir::State=" + filepath.Join(a.dir, "state"),
		"-o", "Dir::State::status=" + filepath.Join(a.dir, "state/status"),
		"-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(a.dir, "sources.list"),
		"-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::Etc::preferences=/dev/null",
		"-o", "Dir::Etc::preferencesparts=/dev/null",
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"-o", "Acquire::Retries=3",
		"-o", "APT::Sandbox::User=root",
	}
	return output(ctx, dir, program, append(options, args...)...)
}

// names returns the names of all packages that begin with prefix.
func (a *apt) names(ctx context.Context, prefix string) ([]string, error) {
	out, err := a.run(ctx, a.dir, "apt-cache", "pkgnames", prefix)
	return strings.Fields(out), err
}

// unpack downloads the packages, with all they depend on if closure is set,
// and unpacks them into the new directory dir, as dpkg-deb does: no package's
// scripts run.
func (a *apt) unpack(ctx context.Context, dir string, closure bool, packages ...string) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, ".unpacking-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	debs, tree := filepath.Join(tmp, "debs"), filepath.Join(tmp, "tree")
	if err := os.MkdirAll(filepath.Join(debs, "partial"), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if err := a.download(ctx, debs, closure, packages); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range found {
		if _, err := output(ctx, tmp, "dpkg-deb", "--extract", deb, tree); err != nil {
			return err
		}
	}
	if err := os.Rename(tree, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("install %s in the cache: %w", strings.Join(packages, ", "), err)
	}
	return nil
}

// download puts the packages' files into debs.
func (a *apt) download(ctx context.Context, debs string, closure bool, packages []string) error {
	args := []string{"download"}
	if closure {
		args = []string{
			"install", "--download-only", "--no-install-recommends", "-y", "-t", qemuSuite,
			"-o", "Dir::Cache::archives=" + debs,
		}
	}
	_, err := a.run(ctx, debs, "apt-get", append(args, packages...)...)
	return err
}
