package rig

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unicode"
)

// SuiteFlags are what every suite of tests on a private containerd can be told
// on its command line.
type SuiteFlags struct {
	ShimDir string // for ShimDir and RequireShim
	Debug   bool
	Log     bool
}

// NewSuiteFlags defines the flags. They have their values once the command
// line is parsed.
func NewSuiteFlags() *SuiteFlags {
	f := new(SuiteFlags)
	shimDirFlag(&f.ShimDir)
	flag.BoolVar(&f.Debug, "debug", false, "let containerd and shims log at debug level")
	flag.BoolVar(&f.Log, "log", false, "print containerd's log even if nothing failed")
	return f
}

// ExitSuite ends a suite's program: with code, or with 1 for an error. One that
// wraps ErrNotRoot or another of the reasons means that nothing could be
// tested here, which is no failure.
func ExitSuite(name string, code int, err error, reasons ...error) {
	for _, reason := range append(reasons, ErrNotRoot) {
		if errors.Is(err, reason) {
			fmt.Printf("%s: all suites skipped: %v\n", name, err)
			os.Exit(0)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		code = 1
	}
	os.Exit(code)
}

// IDOf makes of a test's name an identifier of lower-case words joined by
// dashes, of at most so many bytes.
func IDOf(name string, most int) string {
	words := strings.FieldsFunc(strings.TrimPrefix(name, "Test"), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	id := strings.ToLower(strings.Join(words, "-"))
	return strings.TrimSuffix(id[:min(len(id), most)], "-")
}

// Owner is a file's owner and group, as uid:gid.
func Owner(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprint(st.Uid, ":", st.Gid), nil
}
