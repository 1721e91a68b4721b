package placement

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHostNeedsItsOwnDirectory finds a ledger's directory that is not its own:
// it opens, makes and changes nothing in it, a remembered topology included.
func TestHostNeedsItsOwnDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives a directory to another user")
	}
	const stranger = 12345
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  error
	}{
		"another user's":    {func(dir string) error { return os.Chown(dir, stranger, stranger) }, unix.EPERM},
		"writable by all":   {func(dir string) error { return os.Chmod(dir, 0o777) }, unix.EPERM},
		"readable by group": {func(dir string) error { return os.Chmod(dir, 0o750) }, unix.EPERM},
		"behind a link": {func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".real"), os.Symlink(dir+".real", dir))
		}, unix.ENOTDIR},
	} {
		t.Run(name, func(t *testing.T) {
			s := small(t)
			_, err := openHost(s, nil, nil)
			must(t, err)
			if _, err := os.Stat(filepath.Join(s.Ledger, "topology")); err != nil {
				t.Fatal("no topology was remembered: ", err)
			}
			must(t, c.spoil(s.Ledger))
			happened := watch(t, s.Ledger)
			if _, err := openHost(s, nil, nil); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if names := happened(); len(names) > 0 {
				t.Errorf("it touched %q", names)
			}
		})
	}
}

// watch tells which entries of a directory have been opened, made, changed or
// removed since (inotify(7)).
func watch(t *testing.T, dir string) (happened func() []string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	_, err = unix.InotifyAddWatch(fd, dir, unix.IN_OPEN|unix.IN_CREATE|unix.IN_MODIFY|unix.IN_MOVE|unix.IN_DELETE)
	must(t, err)
	return func() (names []string) {
		buf := make([]byte, 4096)
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		must(t, err)
		for buf = buf[:n]; len(buf) > 0; {
			// A name of zero bytes is the directory itself.
			size := int(buf[12]) | int(buf[13])<<8
			if size > 0 {
				names = append(names, unix.ByteSliceToString(buf[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size]))
			}
			buf = buf[unix.SizeofInotifyEvent+size:]
		}
		return names
	}
}
