package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa"
)

// TestHostileDirectory opens ledgers where there can be none.
func TestHostileDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a directory to somebody else")
	}
	for name, c := range map[string]struct {
		prepare func(t *testing.T, dir string)
		want    error
		text    string
	}{
		"parent missing": {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Dir(dir))) }, unix.ENOENT, "no such file"},
		"file":           {func(t *testing.T, dir string) { must(t, os.WriteFile(dir, nil, 0o700)) }, unix.ENOTDIR, "not a directory"},
		"symlink": {func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"2", 0o700))
			must(t, os.Symlink(dir+"2", dir))
		}, unix.ENOTDIR, "not a directory"},
		"another's": {func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Chown(dir, 12345, 0))
		}, unix.EPERM, "belongs to user 12345"},
		"for the group": {func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Chmod(dir, 0o710))
		}, unix.EPERM, "mode 0710"},
		"for all": {func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Chmod(dir, 0o777))
		}, unix.EPERM, "mode 0777"},
		"read-only file system": {func(t *testing.T, dir string) {
			mountTmpfs(t, filepath.Dir(dir), unix.MS_RDONLY, "")
		}, unix.EROFS, "read-only"},
	} {
		t.Run(name, func(t *testing.T) {
			parent := filepath.Join(t.TempDir(), "run")
			must(t, os.Mkdir(parent, 0o755))
			dir := filepath.Join(parent, "ledger")
			c.prepare(t, dir)
			before := tree(t, filepath.Dir(parent))
			fds := openFDs(t)
			_, err := Open(Config{Dir: dir, Topology: machine()})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%v", err)
			}
			if after := tree(t, filepath.Dir(parent)); !slices.Equal(before, after) {
				t.Errorf("there was %q, is %q", before, after)
			}
			if now := openFDs(t); now != fds {
				t.Errorf("%d descriptors, were %d", now, fds)
			}
		})
	}
}

// TestNoRoom fills the file system of the ledger.
func TestNoRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	for name, options := range map[string]string{"bytes": "size=64k", "inodes": "nr_inodes=3"} {
		t.Run(name, func(t *testing.T) {
			l := open(t)
			must(t, os.Remove(l.config.Dir))
			must(t, os.Mkdir(l.config.Dir, 0o700))
			mountTmpfs(t, l.config.Dir, 0, options+",mode=700")
			a := reserve(t, l, "a", sharedOn(0))
			must(t, os.WriteFile(filepath.Join(l.config.Dir, "filler"), make([]byte, 60<<10), 0o600))
			before := tree(t, l.config.Dir)
			_, err := l.Reserve(t.Context(), bundle(l, strings.Repeat("b", 4000-len(l.config.Roots[0]))), always(dedicated(0)))
			if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), l.config.Dir) {
				t.Errorf("%v", err)
			}
			if after := tree(t, l.config.Dir); !slices.Equal(before, after) {
				t.Errorf("there was %q, is %q", before, after)
			}
			if _, ids := read(t, l); !slices.Equal(ids, []string{"a"}) {
				t.Errorf("the ledger has %q", ids)
			}
			must(t, os.Remove(filepath.Join(l.config.Dir, "filler")))
			must(t, l.Release(t.Context(), a))
		})
	}
}

// TestBecomesReadOnly has the file system of a ledger that is in use become
// read-only.
func TestBecomesReadOnly(t *testing.T) {
	l, a := becomeReadOnly(t, sharedOn(0))
	if err := l.Release(t.Context(), a); !errors.Is(err, unix.EROFS) {
		t.Errorf("%v", err)
	}
	if _, ids := read(t, l); !slices.Equal(ids, []string{"a"}) {
		t.Errorf("the ledger has %q", ids)
	}
}

// TestDamage has the file of the ledger be anything else: it is put aside and
// the claims are read from the bundles.
func TestDamage(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, l *Ledger, state string, good []byte){
		"empty": func(t *testing.T, _ *Ledger, state string, _ []byte) { must(t, os.WriteFile(state, nil, 0o600)) },
		"garbage": func(t *testing.T, _ *Ledger, state string, _ []byte) {
			must(t, os.WriteFile(state, []byte("\x00\xff\n"), 0o600))
		},
		"torn": func(t *testing.T, _ *Ledger, state string, good []byte) {
			must(t, os.Truncate(state, int64(len(good)/2)))
		},
		"huge": func(t *testing.T, _ *Ledger, state string, _ []byte) { must(t, os.Truncate(state, 1<<40)) },
		"flipped": func(t *testing.T, _ *Ledger, state string, good []byte) {
			good[len(good)/2] ^= 1
			must(t, os.WriteFile(state, good, 0o600))
		},
		"directory": func(t *testing.T, _ *Ledger, state string, _ []byte) {
			must(t, os.Remove(state))
			must(t, os.Mkdir(state, 0o700))
		},
		"directory over a file": func(t *testing.T, l *Ledger, state string, _ []byte) {
			must(t, os.WriteFile(filepath.Join(l.config.Dir, badFile), nil, 0o600))
			must(t, os.Remove(state))
			must(t, os.Mkdir(state, 0o700))
		},
		"file over a directory": func(t *testing.T, l *Ledger, state string, _ []byte) {
			must(t, os.Mkdir(filepath.Join(l.config.Dir, badFile), 0o700))
			must(t, os.WriteFile(state, nil, 0o600))
		},
		"symlink": func(t *testing.T, _ *Ledger, state string, good []byte) {
			must(t, os.Rename(state, state+".elsewhere"))
			must(t, os.Symlink(state+".elsewhere", state))
			t.Cleanup(func() {
				if kept, err := os.ReadFile(state + ".elsewhere"); err != nil || string(kept) != string(good) {
					t.Errorf("what the symlink led to: %v", err)
				}
			})
		},
		"FIFO": func(t *testing.T, _ *Ledger, state string, _ []byte) {
			must(t, os.Remove(state))
			must(t, unix.Mkfifo(state, 0o600))
		},
		"other boot": func(t *testing.T, l *Ledger, state string, _ []byte) {
			s := sample(1000)
			text, err := s.encode()
			must(t, err)
			must(t, os.WriteFile(state, text, 0o600))
		},
		"temporary is a directory": func(t *testing.T, l *Ledger, state string, _ []byte) {
			must(t, os.WriteFile(state, nil, 0o600))
			must(t, os.Mkdir(state+tempSuffix, 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t)
			var told []error
			l.config.Defect = func(err error) { told = append(told, err) }
			reserve(t, l, "a", dedicated(1))
			reserve(t, l, "b", sharedOn(1))
			state := filepath.Join(l.config.Dir, stateFile)
			good, err := os.ReadFile(state)
			must(t, err)
			before, _ := read(t, l)
			damage(t, l, state, slices.Clone(good))
			if now, _ := read(t, l); !sameEntries(before, now) {
				t.Errorf("a reader sees %+v, should see %+v", now, before)
			}
			reserve(t, l, "c", dedicated(2))
			if len(told) != 1 || !errors.Is(told[0], errDefect) || !strings.Contains(told[0].Error(), l.config.Dir) {
				t.Errorf("told of %v", told)
			}
			if _, err := os.Lstat(filepath.Join(l.config.Dir, badFile)); err != nil {
				t.Error(err)
			}
			must(t, l.Release(t.Context(), bundle(l, "c")))
			if now, _ := read(t, l); !sameEntries(before, now) {
				t.Errorf("rebuilt %+v, should be %+v", now, before)
			}
		})
	}
}

func TestNewerVersion(t *testing.T) {
	l := open(t)
	a := reserve(t, l, "a", sharedOn(0))
	text := seal("2", "what is to come")
	state := filepath.Join(l.config.Dir, stateFile)
	must(t, os.WriteFile(state, []byte(text), 0o600))
	before := tree(t, l.config.Dir)
	_, reserveErr := l.Reserve(t.Context(), bundle(l, "b"), always(sharedOn(0)))
	_, readErr := l.Read()
	for _, err := range []error{reserveErr, readErr, l.Release(t.Context(), a)} {
		if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), state) {
			t.Errorf("%v", err)
		}
	}
	kept, err := os.ReadFile(state)
	must(t, err)
	if string(kept) != text || !slices.Equal(before, tree(t, l.config.Dir)) {
		t.Errorf("it was written: %q", kept)
	}
}

// TestTopologyChange has shims that see different machines use one ledger.
func TestTopologyChange(t *testing.T) {
	old := open(t)
	old.config.Defect = func(err error) { t.Error(err) }
	reserve(t, old, "a", dedicated(7))
	config := old.config
	config.Topology = machine()
	config.Topology.Hash = "fedcba9876543210"
	after, err := Open(config)
	must(t, err)
	reserve(t, after, "b", dedicated(1))
	reserve(t, old, "c", dedicated(2))
	if entries, ids := read(t, after); !slices.Equal(ids, []string{"a", "b", "c"}) || !entries[0].Owned.Contains(7) {
		t.Errorf("%+v", entries)
	}
	sound(t, old)
}

// tree lists what is below a directory, with modes and sizes.
func tree(t testing.TB, dir string) (list []string) {
	t.Helper()
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			list = append(list, fmt.Sprint(path, " ", info.Mode(), " ", info.Size()))
		}
		return err
	}))
	return list
}

// becomeReadOnly is a ledger with an entry, of the bundle a, whose file system
// became read-only after that.
func becomeReadOnly(t *testing.T, claim numa.Claim) (l *Ledger, a string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system")
	}
	l = open(t)
	mountTmpfs(t, l.config.Dir, 0, "mode=700")
	a = reserve(t, l, "a", claim)
	must(t, unix.Mount("", l.config.Dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "mode=700"))
	return l, a
}

// mountTmpfs mounts for the rest of the test.
func mountTmpfs(t testing.TB, dir string, flags uintptr, options string) {
	t.Helper()
	must(t, unix.Mount("ledger-test", dir, "tmpfs", flags, options))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
}

func openFDs(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(fds)
}
