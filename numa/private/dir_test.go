package private

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenDir(t *testing.T) {
	const stranger = 12345
	for name, c := range map[string]struct {
		prepare func(dir string) error
		want    error
		says    string
	}{
		"its own":    {func(dir string) error { return os.Mkdir(dir, 0o700) }, nil, ""},
		"read-only":  {func(dir string) error { return os.Mkdir(dir, 0o500) }, nil, ""},
		"missing":    {func(string) error { return nil }, unix.ENOENT, "no such file"},
		"a file":     {func(dir string) error { return os.WriteFile(dir, nil, 0o700) }, unix.ENOTDIR, "not a directory"},
		"a FIFO":     {func(dir string) error { return unix.Mkfifo(dir, 0o700) }, unix.ENOTDIR, "not a directory"},
		"a link":     {func(dir string) error { return os.Symlink(filepath.Dir(dir), dir) }, unix.ENOTDIR, "not a directory"},
		"for others": {func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o701)) }, unix.EPERM, "mode 0701"},
		"for all":    {func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) }, unix.EPERM, "mode 0777"},
		"another's":  {func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, stranger, 0)) }, unix.EPERM, "user 12345"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			err := c.prepare(dir)
			if name == "another's" && os.Geteuid() != 0 {
				t.Skip("needs root: gives a directory to another user")
			}
			if err != nil {
				t.Fatal(err)
			}
			fd, err := OpenDir(dir)
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
				if err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("descriptor flags %#x, %v", flags, err)
				}
				unix.Close(fd)
				return
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%d, %v; want %v", fd, err, c.want)
			}
		})
	}
}
