package numa

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"containerd-shim-numa-v1/numa/cpuset"
)

// maxFile bounds the files that are read, in bytes. The kernel's longest are
// lists of CPUs: 8192 of them, none next to another, take 20 KiB.
const maxFile = 64 << 10

// pageSize is the smallest page of the kernel, in bytes.
const pageSize = 4 << 10

var errLong = fmt.Errorf("larger than %d bytes", maxFile)

// sysfs reads small files. It is used by one goroutine.
type sysfs struct {
	fsys fs.FS
	buf  []byte
}

// text is the content of a file up to a first NUL, without white space around
// it. found is false where there is no such file, which is no error: kernels,
// architectures and CPUs differ in what they tell.
func (s *sysfs) text(path string) (text string, found bool, err error) {
	f, err := s.fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err // a *fs.PathError names the file
	}
	defer f.Close()
	n, err := s.read(f)
	if err != nil {
		return "", false, fmt.Errorf("%s: %w", path, err)
	}
	text, _, _ = strings.Cut(string(s.buf[:n]), "\x00")
	return strings.TrimSpace(text), true, nil
}

// read fills the buffer. sysfs fills each read up to a page, and a list that
// changes between two reads comes out as neither what it was nor what it is
// ("6" and "6-7" as "6", line break, "7"). So a second read is made only where
// a first one was full.
func (s *sysfs) read(f io.Reader) (n int, err error) {
	for n <= maxFile {
		s.buf = slices.Grow(s.buf[:n], pageSize)
		s.buf = s.buf[:cap(s.buf)]
		more, err := f.Read(s.buf[n:])
		n += more
		if err == io.EOF || err == nil && more < pageSize {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, errLong
}

// list reads a set of CPUs or nodes. A file that is not there is the empty set.
func (s *sysfs) list(path string) (set cpuset.Set, found bool, err error) {
	text, found, err := s.text(path)
	if err != nil || !found {
		return cpuset.Set{}, false, err
	}
	if set, err = cpuset.Parse(text); err != nil {
		return cpuset.Set{}, false, fmt.Errorf("%s: %w", path, err)
	}
	return set, true, nil
}

// firstList reads the first of the files in dir that is there: newer kernels
// renamed some. Where none is there it is the empty set.
func (s *sysfs) firstList(dir string, names ...string) (cpuset.Set, error) {
	for _, name := range names {
		if set, found, err := s.list(dir + name); err != nil || found {
			return set, err
		}
	}
	return cpuset.Set{}, nil
}

// number reads a number of at least 0. The kernel's -1 for "unknown" is 0, as
// is a file that is not there.
func (s *sysfs) number(path string) (n int, found bool, err error) {
	text, found, err := s.text(path)
	if err != nil || !found {
		return 0, false, err
	}
	if n, err = strconv.Atoi(text); err == nil && n > math.MaxInt32 {
		err = strconv.ErrRange
	}
	if err != nil {
		return 0, false, fmt.Errorf("%s: %q: %w", path, text, err)
	}
	return max(n, 0), true, nil
}
