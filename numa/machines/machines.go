package machines

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing/fstest"
)

//go:embed sys/*.txt
var texts embed.FS

const (
	textDir = "sys"
	suffix  = ".txt"
)

// Names are the machines, in alphabetical order.
func Names() []string {
	entries, err := texts.ReadDir(textDir)
	if err != nil {
		panic(err) // the directory is part of the program
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), suffix)
	}
	return names
}

// Open returns the /sys of a machine. It belongs to the caller, who may change
// it.
func Open(name string) (fstest.MapFS, error) {
	text, err := texts.ReadFile(textDir + "/" + name + suffix)
	if err != nil {
		return nil, fmt.Errorf("open machine %q: %w", name, err)
	}
	fsys, err := Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("open machine %q: %w", name, err)
	}
	return fsys, nil
}

// Expand writes the /sys of a machine as files below dir, which it makes if
// need be.
func Expand(name, dir string) error {
	fsys, err := Open(name)
	if err != nil {
		return err
	}
	for path, file := range fsys {
		full := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return fmt.Errorf("expand machine %q: %w", name, err)
		}
		if err := os.WriteFile(full, file.Data, 0o444); err != nil {
			return fmt.Errorf("expand machine %q: %w", name, err)
		}
	}
	return nil
}
