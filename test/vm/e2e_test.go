package vm_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"containerd-shim-numa-v1/test/rig"
	"containerd-shim-numa-v1/test/vm"
)

var (
	e2eKernelsFlag = flag.String("e2e-kernels", "6.12,7", "`series` of kernels for the end-to-end suites, separated by commas")
	shimDirFlag    = rig.ShimDirFlag()
)

// e2eTimeout is for the suites in one guest.
const e2eTimeout = 30 * time.Minute

// e2eCounts keep the suites that repeat things short: an instruction takes ten
// to fifty times as long as on the host, which repeats them in earnest.
var e2eCounts = []string{
	"-cycles=5", "-rounds=1", "-concurrent=5", "-early-exits=8", "-shim-kills=3", "-restarts=1", "-layers=20",
	"-test.skip=^(TestAllExitCodes|TestSoak|TestMostLayers|TestPlacement)",
}

// goStandIn answers what the rig asks of the go command, in a guest that has
// none: the versions of the programs in its cache, and its payload.
const goStandIn = `#!/bin/sh
case $1 in
list)
	for module; do :; done
	cd ~/.cache/containerd-shim-numa
	case $module in
	*/runc) echo runc-* ;;
	*) echo containerd-* ;;
	esac | sed s/.*-/v/ ;;
build)
	while [ "$1" != -o ]; do shift; done
	cp /usr/local/lib/payload "$2" ;;
*)
	echo "go $*: not in a guest" >&2
	exit 1 ;;
esac
`

// endToEnd is a guest with the end-to-end suites, and what they need, in its
// working directory; what it is made of is missing.
func endToEnd(t *testing.T) vm.Boot {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest: not with -short")
	}
	tools, err := rig.Build(t.Context(), "2")
	if err != nil {
		t.Fatal(err)
	}
	shims, err := rig.RequireShim(*shimDirFlag)
	if err != nil {
		t.Fatal(err)
	}
	standIn := filepath.Join(t.TempDir(), "go")
	if err := os.WriteFile(standIn, []byte(goStandIn), 0o755); err != nil {
		t.Fatal(err)
	}
	const cache = "/root/.cache/containerd-shim-numa"
	files := map[string]string{
		"/src/bin":               shims,
		"/src/test/go.mod":       "../go.mod",
		"/src/test/e2e/e2e.test": build(t, "..", "", "test", "-c", "./e2e"),
		"/usr/local/lib/payload": build(t, "..", "", "build", "./payload"),
		"/usr/local/bin/go":      standIn,
	}
	for _, program := range []string{tools.Containerd, tools.Runc} {
		dir := filepath.Dir(program)
		files[filepath.Join(cache, filepath.Base(dir))] = dir
	}
	return vm.Boot{
		Files: files,
		// rig runs runc from the cache: its libraries are what the guest lacks.
		Programs: []string{tools.Runc},
		Dir:      "/src/test/e2e",
		Command:  []string{"./e2e.test", "-test.v=test2json", fmt.Sprintf("-test.timeout=%s", e2eTimeout)},
		Timeout:  e2eTimeout + time.Minute,
	}
}

// TestEndToEnd runs the end-to-end suites with a real containerd on cgroup v2,
// on a machine of two NUMA nodes with SMT.
func TestEndToEnd(t *testing.T) {
	b := endToEnd(t)
	b.Command = append(b.Command, e2eCounts...)
	b.Memory = 4096 // MiB
	b.Topology = vm.Topology{Sockets: 2, Cores: 1, Threads: 2}
	for series := range strings.SplitSeq(*e2eKernelsFlag, ",") {
		t.Run(series, func(t *testing.T) {
			b := b
			b.Kernel = series
			runTests(t, b, "TestCtrRun", "TestExec")
		})
	}
}
