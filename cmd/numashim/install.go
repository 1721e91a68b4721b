package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// shimName is the name by which containerd looks for the runtime
// io.containerd.numa.v1.
const shimName = "containerd-shim-numa-v1"

const (
	binaryMode    = 0o755
	directoryMode = 0o755
)

// install copies the shim. A shim that runs keeps its file, since the new one
// is renamed over the name only.
func install(_ context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("install", flag.ContinueOnError)
	from := f.String("from", "/"+shimName, "the shim to install")
	to := f.String("to", "/usr/local/bin", "directory to install it in")
	if err := parse(f, args, out); err != nil {
		return err
	}
	path := filepath.Join(*to, shimName)
	changed, err := replace(*from, path)
	if err != nil {
		return fmt.Errorf("install %s as %s: %w", *from, path, err)
	}
	if changed {
		fmt.Fprintf(out, "installed %s\n", path)
	} else {
		fmt.Fprintf(out, "%s is up to date\n", path)
	}
	return nil
}

// replace makes path a copy of the executable from, in one step and durably,
// and leaves alone a path that is one already.
func replace(from, path string) (changed bool, err error) {
	data, err := os.ReadFile(from)
	if err != nil {
		return false, err
	}
	switch same, err := holds(path, data); {
	case err != nil:
		return false, err
	case same:
		return false, nil
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, directoryMode); err != nil {
		return false, err
	}
	f, err := os.CreateTemp(dir, "."+shimName+"-*")
	if err != nil {
		return false, err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return false, err
	}
	if err := f.Chmod(binaryMode); err != nil {
		return false, err
	}
	if err := f.Sync(); err != nil {
		return false, err
	}
	return true, os.Rename(f.Name(), path)
}

// holds tells whether path is an executable file with the content data.
func holds(path string, data []byte) (bool, error) {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st.IsDir() {
		return false, errors.New("it is a directory")
	}
	if !st.Mode().IsRegular() || st.Mode().Perm() != binaryMode || st.Size() != int64(len(data)) {
		return false, nil
	}
	have, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	return bytes.Equal(have, data), nil
}
