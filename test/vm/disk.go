package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"containerd-shim-numa-v1/test/vm/guest"
)

// busybox gives the guest its shell and tools.
const busybox = "/bin/busybox"

// diskSlack is the room on the root disk beyond what the host puts there, in
// MiB. The image is sparse: unused room costs nothing.
const diskSlack = 2048

// guestEtc is the least that programs look for in /etc.
var guestEtc = map[string]string{
	"passwd":   "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
	"group":    "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
	"hosts":    "127.0.0.1 localhost vm\n",
	"hostname": "vm\n",
	"mtab":     "",
}

// stage lays the guest's root out in the directory root.
func (b Boot) stage(ctx context.Context, root string) error {
	for _, dir := range []string{"bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/tmp", strings.TrimPrefix(guest.OutDir, "/")} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(filepath.Join(root, dir), 0o777|fs.ModeSticky); err != nil {
			return err
		}
	}
	for name, content := range guestEtc {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := stageBusybox(ctx, root); err != nil {
		return err
	}
	for _, program := range b.Programs {
		if err := stageProgram(ctx, root, program); err != nil {
			return fmt.Errorf("put %s into the guest: %w", program, err)
		}
	}
	for target, source := range b.Files {
		if err := copyTree(filepath.Join(root, target), source); err != nil {
			return fmt.Errorf("put %s into the guest: %w", source, err)
		}
	}
	spec, err := json.Marshal(guest.Spec{Command: b.Command, Env: b.Env, Dir: b.Dir, CgroupV1: b.CgroupV1})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, guest.SpecPath), spec, 0o644)
}

func stageBusybox(ctx context.Context, root string) error {
	if err := copyTree(filepath.Join(root, busybox), busybox); err != nil {
		return fmt.Errorf("install busybox-static: %w", err)
	}
	applets, err := output(ctx, root, busybox, "--list")
	if err != nil {
		return err
	}
	for _, applet := range strings.Fields(applets) {
		err := os.Symlink("busybox", filepath.Join(root, "bin", applet))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// stageProgram copies a program of the host and the shared libraries it loads
// to the same paths.
func stageProgram(ctx context.Context, root, program string) error {
	paths := []string{program}
	libraries, err := output(ctx, root, "ldd", program)
	if err != nil {
		return err
	}
	for field := range strings.FieldsSeq(libraries) {
		if strings.HasPrefix(field, "/") { // "libc.so.6 => /lib/libc.so.6 (0x…)", "/lib64/ld.so (0x…)"
			paths = append(paths, field)
		}
	}
	for _, path := range paths {
		if err := copyTree(filepath.Join(root, path), path); err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies a file or a directory, of which it follows the first
// symbolic link only. What is there is replaced by files, joined by
// directories.
func copyTree(target, source string) error {
	source, err := filepath.EvalSymlinks(source)
	if err != nil {
		return err
	}
	return filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		return copyEntry(filepath.Join(target, below), path, d)
	})
}

func copyEntry(target, source string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	if d.IsDir() {
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		return os.Chmod(target, info.Mode())
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch d.Type() {
	case 0:
		content, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		if err := os.WriteFile(target, content, 0o600); err != nil {
			return err
		}
		return os.Chmod(target, info.Mode())
	case fs.ModeSymlink:
		link, err := os.Readlink(source)
		if err != nil {
			return err
		}
		return os.Symlink(link, target)
	default:
		return fmt.Errorf("%s is neither file, directory nor symbolic link", source)
	}
}

// writeDisk makes an ext4 image of the directory root, without mounting it.
func writeDisk(ctx context.Context, image, root string) error {
	size := int64(0)
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		return err
	}
	const mib = 1 << 20
	_, err = output(ctx, root, "/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4",
		// Written by the host's e2fsprogs for kernels older than it.
		"-O", "^metadata_csum_seed,^orphan_file",
		"-E", "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0",
		"-d", root, image, fmt.Sprintf("%dM", size/mib+diskSlack))
	return err
}

// copyOut copies what the guest left in /out from the disk into the directory
// dir. work is for what is made on the way.
func copyOut(ctx context.Context, image, work, dir string) error {
	request := fmt.Sprintf("rdump %s %s", guest.OutDir, work)
	cmd := exec.CommandContext(ctx, "/usr/sbin/debugfs", "-R", request, image)
	// debugfs ends with status 0 whatever happens; errors name the request.
	out, err := cmd.CombinedOutput()
	if err == nil && strings.Contains(string(out), "rdump:") {
		err = errors.New("it says")
	}
	if err != nil {
		return fmt.Errorf("debugfs %q on the guest's disk: %w: %s", request, err, out)
	}
	return copyTree(dir, filepath.Join(work, filepath.Base(guest.OutDir)))
}
