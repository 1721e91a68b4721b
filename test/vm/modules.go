package vm

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// wantedModules are loaded where the kernel has them as modules. Some are
// built in, in some releases; the guest's init holds what must be there.
// crc32c is here since ext4 asks the crypto API for it, which is no dependency
// that the module names.
var wantedModules = []string{
	"virtio_pci", "virtio_blk", "crc32c_generic", "crc32c_intel", "ext4",
	"overlay", "loop", "erofs", "squashfs", "fuse", "veth", "bridge",
}

// module is one kernel module, decompressed.
type module struct {
	name  string // file name, "overlay.ko"
	image []byte
}

// modules returns what the guest loads, more beside what all guests do,
// dependencies first.
func (k kernel) modules(ctx context.Context, more []string) ([]module, error) {
	files, err := k.findModules()
	if err != nil {
		return nil, err
	}
	l := loader{files: files, seen: make(map[string]bool)}
	for _, name := range slices.Concat(wantedModules, more) {
		if files[name] == "" {
			continue
		}
		if err := l.add(ctx, name); err != nil {
			return nil, fmt.Errorf("kernel %s: %w", k.release, err)
		}
	}
	return l.order, nil
}

// findModules maps module names to files.
func (k kernel) findModules() (map[string]string, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(k.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			files[moduleName(path)] = path
		}
		return err
	})
	return files, err
}

// moduleName is the module's name as the kernel writes it: a file's base name
// without ".ko" and what follows, hyphens as underscores.
func moduleName(path string) string {
	base, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// loader collects modules in the order in which they can be loaded.
type loader struct {
	files map[string]string
	seen  map[string]bool
	order []module
}

func (l *loader) add(ctx context.Context, name string) error {
	if l.seen[name] {
		return nil
	}
	l.seen[name] = true
	path := l.files[name]
	if path == "" {
		return fmt.Errorf("no module %s", name)
	}
	image, err := decompress(ctx, path)
	if err != nil {
		return err
	}
	depends, err := dependencies(image)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for _, d := range depends {
		if err := l.add(ctx, moduleName(d)); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	l.order = append(l.order, module{name + ".ko", image})
	return nil
}

func decompress(ctx context.Context, path string) ([]byte, error) {
	program := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[filepath.Ext(path)]
	if program == "" {
		return os.ReadFile(path)
	}
	out, err := output(ctx, "/", program, "-dc", path)
	return []byte(out), err
}

// dependencies reads "depends=a,b" from the section .modinfo, which holds
// strings that end in NUL. Modules built into the kernel are not named there.
func dependencies(image []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range strings.SplitSeq(string(info), "\x00") {
		if value, ok := strings.CutPrefix(entry, "depends="); ok {
			return strings.FieldsFunc(value, func(r rune) bool { return r == ',' }), nil
		}
	}
	return nil, nil
}
