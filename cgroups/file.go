package cgroups

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readFile reads a file of cgroupfs or procfs. It differs from os.ReadFile in
// that the descriptor is not entered in the runtime's epoll set, to which
// those files would agree: half of the system calls of a short read.
func readFile(path string) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	text, err := readFrom(fd)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return text, nil
}

// readFrom reads the whole file, without moving fd's own offset. It reads on
// the stack what fits there: most files of cgroupfs have a few bytes, and there
// are dozens of them for each Stats call, which containerd makes every second.
func readFrom(fd int) ([]byte, error) {
	const pageSize = 4096 // most files of cgroupfs are smaller
	var page [pageSize]byte
	text := page[:0]
	for {
		if len(text) == cap(text) {
			text = append(text, 0)[:len(text)]
		}
		var n int
		err := retryEINTR(func() (err error) {
			n, err = unix.Pread(fd, text[len(text):cap(text)], int64(len(text)))
			return err
		})
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return bytes.Clone(text), nil
		}
		text = text[:len(text)+n]
	}
}

// writeFile writes value to an existing file in a single write(2), which
// cgroupfs takes as one command.
func writeFile(path, value string) error {
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := retryEINTR(func() error { _, err := unix.Write(fd, []byte(value)); return err }); err != nil {
		return &fs.PathError{Op: "write " + strconv.Quote(value) + " to", Path: path, Err: err}
	}
	return nil
}

func open(path string, flags int) (fd int, err error) {
	err = retryEINTR(func() (err error) {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func retryEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// isGone tells that a file of cgroupfs does not exist, or that its cgroup was
// removed while it was open.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

// isAbsent tells that a file has nothing to say: it is gone or, as the
// pressure files of a kernel booted with psi=0, present without support.
func isAbsent(err error) bool {
	return isGone(err) || errors.Is(err, unix.EOPNOTSUPP)
}

// reader reads the files of one cgroup directory. What is absent reads as
// zero; the first other error is kept in err.
type reader struct {
	dir string
	err error
}

func (r *reader) text(name string) string {
	text, err := readFile(filepath.Join(r.dir, name))
	if err != nil && !isAbsent(err) && r.err == nil {
		r.err = err
	}
	return string(text)
}

// number reads a file with one number. The word "max", no limit, reads as the
// given value.
func (r *reader) number(name string, unlimited uint64) uint64 {
	text := strings.TrimSpace(r.text(name))
	if text == "max" {
		return unlimited
	}
	return parseNumber(text)
}

// keyed reads a file of "key value" lines.
func (r *reader) keyed(name string) map[string]uint64 { return parseKeyed(r.text(name)) }

func parseKeyed(text string) map[string]uint64 {
	values := make(map[string]uint64)
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			values[key] = parseNumber(value)
		}
	}
	return values
}

// parseNumber reads a decimal number. Negative ones, which v1 prints for some
// counters that went astray, and malformed ones are zero.
func parseNumber(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0
	}
	return n
}

// hugePageSizes returns the sizes of the kernel's huge pages as the names of
// the hugetlb files have them, such as "2MB", in the order of the directory's
// names.
func hugePageSizes() []string {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil // a kernel without them
	}
	var sizes []string
	for _, entry := range entries {
		kilobytes, ok := strings.CutSuffix(strings.TrimPrefix(entry.Name(), "hugepages-"), "kB")
		if n := parseNumber(kilobytes); ok && n > 0 {
			sizes = append(sizes, pageSizeName(n))
		}
	}
	return sizes
}

// pageSizeName writes a size as hugetlb_cgroup.c of the kernel does.
func pageSizeName(kilobytes uint64) string {
	const kilo, mega = 1 << 10, 1 << 20
	switch {
	case kilobytes >= mega:
		return strconv.FormatUint(kilobytes/mega, 10) + "GB"
	case kilobytes >= kilo:
		return strconv.FormatUint(kilobytes/kilo, 10) + "MB"
	default:
		return strconv.FormatUint(kilobytes, 10) + "KB"
	}
}
