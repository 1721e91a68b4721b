package vm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"containerd-shim-numa-v1/test/vm/guest"
)

// initPackage is the guest's first program.
const initPackage = "containerd-shim-numa-v1/test/vm/init"

// writeInitramfs writes an initramfs of the guest's init and the kernel's
// modules, more beside those of every guest. dir is for what is made on the way.
func writeInitramfs(ctx context.Context, path, dir string, k kernel, more []string) error {
	modules, err := k.modules(ctx, more)
	if err != nil {
		return err
	}
	init, err := buildInit(ctx, filepath.Join(dir, "init"))
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := newCpio(f)
	for _, d := range []string{"dev", "root", strings.TrimPrefix(guest.ModuleDir, "/")} {
		w.directory(d)
	}
	w.file("init", 0o755, init)
	var order strings.Builder
	for _, m := range modules {
		w.file(filepath.Join(guest.ModuleDir, m.name)[1:], 0o644, m.image)
		order.WriteString(m.name + "\n")
	}
	w.file(guest.ModuleOrder[1:], 0o644, []byte(order.String()))
	if err := w.close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Close()
}

// buildInit builds the guest's init, static. Go's build cache makes a repeated
// call cheap.
func buildInit(ctx context.Context, path string) ([]byte, error) {
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if _, err := output(ctx, wd, "env", "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=",
		"go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, initPackage); err != nil {
		return nil, fmt.Errorf("build the guest's init, from within the test module: %w", err)
	}
	return os.ReadFile(path)
}

// cpio writes an archive in the "newc" format, which is what the kernel's
// early userspace reads (Documentation/driver-api/early-userspace/buffer-format.rst).
// The first error sticks, and close returns it.
type cpio struct {
	w     *bufio.Writer
	inode int
	err   error
}

func newCpio(w io.Writer) *cpio { return &cpio{w: bufio.NewWriter(w)} }

// File types of st_mode, see inode(7).
const (
	modeDirectory = 0o040000
	modeRegular   = 0o100000
)

func (c *cpio) directory(name string) { c.entry(name, modeDirectory|0o755, nil) }

func (c *cpio) file(name string, perm int, content []byte) {
	c.entry(name, modeRegular|perm, content)
}

func (c *cpio) close() error {
	c.entry("TRAILER!!!", 0, nil)
	if c.err != nil {
		return c.err
	}
	return c.w.Flush()
}

func (c *cpio) entry(name string, mode int, content []byte) {
	if c.err != nil {
		return
	}
	c.inode++
	const links = 1
	// inode, mode, uid, gid, links, mtime, size, device major and minor,
	// rdev major and minor, length of name with its NUL, checksum
	header := "070701"
	for _, field := range []int{c.inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		header += fmt.Sprintf("%08X", field)
	}
	header += name + "\x00"
	for _, part := range []string{header, string(content)} {
		// Header and content are each padded to four bytes.
		if _, c.err = c.w.WriteString(part + "\x00\x00\x00"[:-len(part)&3]); c.err != nil {
			return
		}
	}
}
