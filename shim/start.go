package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The files that start leaves in a bundle.
const (
	// addressName holds the socket's address. containerd 1.7 reads it when it
	// loads a bundle, and this package to find the socket again.
	addressName     = "address"
	addressTempName = ".address"
	addressMode     = 0o600
	// socketDirName is a link to the socket directory, where containerd named
	// one.
	socketDirName = "s"
)

// undo is a stack of what takes back the steps done so far.
type undo []func()

func (u *undo) push(f func()) { *u = append(*u, f) }

func (u *undo) run() {
	for i := len(*u) - 1; i >= 0; i-- {
		(*u)[i]()
	}
}

// start answers for the container whose bundle is the working directory: with
// its group's daemon if there is one, else with a new one.
func (r Runtime) start(f flags) (err error) {
	input, err := readInput(os.Stdin)
	if err != nil {
		return err
	}
	l, err := parseLaunch(input, f)
	if err != nil {
		return err
	}
	if l.socketDir == "" {
		l.socketDir = r.tuned().socketDir
	}
	bundle, err := f.bundleDir()
	if err != nil {
		return err
	}
	group, err := groupOf(bundle, l.id)
	if err != nil {
		return err
	}
	path, err := socketPath(l.socketDir, l.address, l.namespace, group, false)
	if err != nil {
		return err
	}
	answer, err := l.answer(path, r.claims())
	if err != nil {
		return err
	}

	var steps undo
	var listener *os.File
	defer func() {
		if err != nil {
			steps.run()
		}
		// After the steps: while we listen, nobody else takes the socket over,
		// so what they remove is ours.
		if listener != nil {
			listener.Close()
		}
	}()
	listener, err = claim(path)
	switch {
	case errors.Is(err, errInUse):
		if err := record(&steps, bundle, l.socketDir, path); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		steps.push(func() { os.Remove(path) })
		if err := record(&steps, bundle, l.socketDir, path); err != nil {
			return err
		}
		if err := l.launchDaemon(&steps, bundle, group, listener); err != nil {
			return err
		}
	}
	if _, err := os.Stdout.Write(answer); err != nil {
		return fmt.Errorf("write the answer to stdout: %w", err)
	}
	return nil
}

// launchDaemon leaves a daemon behind that serves the listener.
func (l launch) launchDaemon(steps *undo, bundle, group string, listener *os.File) error {
	sockets := []*os.File{listener}
	if l.debug && debugServed {
		path, err := socketPath(l.socketDir, l.address, l.namespace, group, true)
		if err != nil {
			return err
		}
		// Whoever owns the group's socket owns this one.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an earlier debug socket: %w", err)
		}
		debugListener, err := claim(path)
		if err != nil {
			return err
		}
		defer debugListener.Close()
		steps.push(func() { os.Remove(path) })
		sockets = append(sockets, debugListener)
	}
	daemon, err := l.spawn(bundle, group, sockets)
	if err != nil {
		return err
	}
	steps.push(func() {
		_ = daemon.Kill()
		_, _ = daemon.Wait()
	})
	if l.shimCgroup != "" {
		if err := joinCgroup(l.shimCgroup, daemon.Pid); err != nil {
			return err
		}
	}
	return raiseOOMScore(daemon.Pid)
}

// record leaves in the bundle where its daemon listens.
func record(steps *undo, bundle, socketDir, socket string) error {
	temp := filepath.Join(bundle, addressTempName)
	name := filepath.Join(bundle, addressName)
	steps.push(func() {
		os.Remove(temp)
		os.Remove(name)
	})
	if err := os.WriteFile(temp, []byte(unixScheme+socket), addressMode); err != nil {
		return fmt.Errorf("record the daemon's address: %w", err)
	}
	if err := os.Rename(temp, name); err != nil {
		return fmt.Errorf("record the daemon's address: %w", err)
	}
	if socketDir == defaultSocketDir {
		return nil
	}
	link := filepath.Join(bundle, socketDirName)
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an earlier link to the socket directory: %w", err)
	}
	steps.push(func() { os.Remove(link) })
	if err := os.Symlink(socketDir, link); err != nil {
		return fmt.Errorf("record the socket directory: %w", err)
	}
	return nil
}
