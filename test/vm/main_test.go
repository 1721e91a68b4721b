package vm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"containerd-shim-numa-v1/test/vm"
)

var (
	kernelsFlag = flag.String("kernels", "6.1,6.12,6.18,7", "`series` of kernels, oldest first, separated by commas")
	outputFlag  = flag.Bool("guest-output", false, "print what guests print, as it comes")
)

// kernels are the series to test with. The oldest and the newest stand for all
// where the kernel matters little.
func kernels() []string { return strings.Split(*kernelsFlag, ",") }

func newest() string { return kernels()[len(kernels())-1] }

// productTags build the product's packages as the product has them, but
// without cgo: a guest has no C library.
const productTags = "no_grpc seccomp netgo osusergo"

// build builds a program or, by "test -c", a test binary in the directory
// module, static, and returns its path. The last of args is the package.
func build(t *testing.T, module, tags string, args ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest: not with -short")
	}
	path := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", slices.Concat(args[:len(args)-1], []string{"-tags", tags, "-o", path}, args[len(args)-1:])...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s in %s: %v\n%s", strings.Join(cmd.Args, " "), module, err, out)
	}
	return path
}

// boot runs the guest; one that ends without an exit status fails the test.
func boot(t *testing.T, b vm.Boot) vm.Result {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest: not with -short")
	}
	if *outputFlag {
		b.Stdout = os.Stderr
	}
	r, err := b.Run(t.Context())
	if err != nil {
		t.Fatalf("%v\n---- end of its output\n%s", err, lastLines(r.Output))
	}
	t.Logf("kernel %s, up after %s, %s in all, boots: %d", r.Release, r.Uptime, r.Wall.Round(time.Millisecond), r.Attempts)
	return r
}

// lastLines is the end of what a guest printed.
func lastLines(output []byte) []byte {
	const limit = 8192 // bytes
	return output[max(0, len(output)-limit):]
}

// runTests boots a guest whose command is a test binary with
// -test.v=test2json. Each of its tests becomes one of t's, that passes, fails
// or skips as it did in the guest. Those that must are the guest's purpose:
// they may not skip or be missing.
func runTests(t *testing.T, b vm.Boot, must ...string) {
	t.Helper()
	r := boot(t, b)
	results := parse(t, r.Output)
	failed := false
	for _, result := range results {
		failed = failed || result.action == "fail"
		if slices.Contains(must, result.name) && result.action == "skip" {
			result.action = "fail"
		}
		t.Run(result.name, func(t *testing.T) {
			switch result.action {
			case "fail":
				t.Errorf("%s in the guest\n%s", result.action, result.output)
			case "skip":
				t.Skipf("in the guest:\n%s", result.output)
			case "pass":
			default:
				t.Errorf("did not end in the guest\n%s", result.output)
			}
		})
	}
	for _, name := range must {
		if !slices.ContainsFunc(results, func(r testResult) bool { return r.name == name }) {
			t.Errorf("%s did not run in the guest", name)
		}
	}
	if len(results) == 0 || r.ExitCode != 0 && !failed {
		t.Errorf("%d tests ran in the guest, exit status %d\n%s", len(results), r.ExitCode, lastLines(r.Output))
	}
}

// testResult is one test, of those that have no subtests, or whose own part
// failed.
type testResult struct {
	name, action, output string
}

// parse reads what a test binary printed under -test.v=test2json, in the order
// in which tests began.
func parse(t *testing.T, output []byte) []testResult {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "go", "tool", "test2json")
	cmd.Stdin = bytes.NewReader(output)
	events, err := cmd.Output()
	if err != nil {
		t.Fatalf("go tool test2json: %v", err)
	}
	var results []testResult
	index := make(map[string]int)
	for d := json.NewDecoder(bytes.NewReader(events)); ; {
		var event struct{ Action, Test, Output string }
		if err := d.Decode(&event); err == io.EOF {
			return results
		} else if err != nil {
			t.Fatalf("read what test2json printed: %v", err)
		}
		if event.Test == "" {
			continue
		}
		i, known := index[event.Test]
		if !known {
			i = len(results)
			index[event.Test] = i
			results = append(results, testResult{name: event.Test})
		}
		switch event.Action {
		case "pass", "fail", "skip":
			results[i].action = event.Action
		case "output":
			results[i].output += event.Output
		}
	}
}
