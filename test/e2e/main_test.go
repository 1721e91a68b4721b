package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"

	"containerd-shim-numa-v1/test/rig"
)

var (
	flags          = rig.NewSuiteFlags()
	runtimeFlag    = flag.String("runtime", rig.OurRuntime, "runtime `type` to test")
	containerdFlag = flag.String("containerd", "2", "containerd `version` to test with: 2 or 1.7")
	criuFlag       = flag.String("criu", "", "`directory` of a criu that works on this kernel (default: Debian's, of a newer release)")

	layersFlag     = flag.Int("layers", 50, "layers of the many-layered image")
	cyclesFlag     = flag.Int("cycles", 60, "sequential run and delete cycles")
	concurrentFlag = flag.Int("concurrent", 20, "containers run at once")
	roundsFlag     = flag.Int("rounds", 3, "rounds of concurrent containers")
	shortFlag      = flag.Int("early-exits", 50, "containers that exit at once")
	shimKillsFlag  = flag.Int("shim-kills", 15, "times a shim is killed at a random moment")
	ownMachineFlag = flag.Bool("own-machine", false, "the machine is the tests' alone: use up the memory of a node, take CPUs offline")
	restartsFlag   = flag.Int("restarts", 2, "times containerd is killed under running containers")
)

// fixture is what all tests share. It is made once, in TestMain, and not
// changed afterwards.
type fixture struct {
	// leased keeps what the client makes besides (copies of images for user
	// namespaces, with containerd 1.7) from being collected between tests.
	leased context.Context

	*rig.Machine
	daemon  *rig.Daemon
	events  *rig.Recorder
	image   containerd.Image // busybox and payload, one layer
	layered containerd.Image // the same below many layers
	tree    rig.Tree         // what a container must see of layered
	idmaps  bool             // the snapshotter leaves ids to idmapped mounts (containerd 2.0)
}

var (
	shared  *fixture
	skipped atomic.Int32
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	rig.ExitSuite("e2e", code, err, errNoEngine)
}

// run sets the fixture up, runs the tests and reports. It returns inside the
// isolation only.
func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	machine, err := rig.Enter(ctx, *containerdFlag)
	if err != nil {
		return 1, err
	}
	dir, err := shimDir()
	if err != nil {
		return 1, err
	}
	if err := setEngine(machine); err != nil {
		return 1, err
	}
	machine.Path += ":" + criuDir()
	daemon, err := rig.StartDaemon(ctx, rig.DaemonConfig{Machine: machine, ShimDir: dir, Debug: flags.Debug})
	if err != nil {
		return 1, err
	}
	defer func() {
		if code != 0 || err != nil || flags.Log {
			fmt.Fprintf(os.Stderr, "---- containerd's log\n%s----\n", daemon.Log())
		}
		err = errors.Join(err, daemon.Close())
	}()
	leased, release, err := daemon.Client().WithLease(ctx)
	if err != nil {
		return 1, err
	}
	defer release(ctx)
	shared = &fixture{Machine: machine, daemon: daemon, leased: leased}
	if err := shared.importImages(ctx); err != nil {
		return 1, err
	}
	if shared.events, err = daemon.Record(ctx); err != nil {
		return 1, err
	}
	defer shared.events.Close()
	if err := shared.warmUp(ctx); err != nil {
		return 1, err
	}
	code = m.Run()
	fmt.Printf("e2e: %s, engine %s, on containerd %s: %d tests skipped\n", *runtimeFlag, *engineFlag, machine.Version, skipped.Load())
	return code, nil
}

// shimDir is where containerd looks for shims first.
func shimDir() (string, error) {
	if ours() {
		return rig.RequireShim(flags.ShimDir)
	}
	return rig.ShimDir(flags.ShimDir)
}

func (f *fixture) importImages(ctx context.Context) error {
	base, err := f.BaseLayer()
	if err != nil {
		return err
	}
	if f.image, err = f.daemon.ImportImage(ctx, "rig.test/base:1", []rig.Layer{base}); err != nil {
		return err
	}
	layers, tree := rig.LayeredImage(base, *layersFlag-1)
	f.tree = tree
	if f.layered, err = f.daemon.ImportImage(ctx, "rig.test/layered:1", layers); err != nil {
		return err
	}
	capabilities, err := f.daemon.Client().GetSnapshotterCapabilities(ctx, rig.Snapshotter)
	f.idmaps = slices.Contains(capabilities, "remap-ids")
	return err
}

// warmUp runs one container, so that directories which the first one makes
// and none removes (sockets, FIFOs, ledger) are in every later census.
func (f *fixture) warmUp(ctx context.Context) error {
	before := f.daemon.TakeCensus()
	r := f.daemon.RunCtr(ctx, "run", "--rm", "--runtime", *runtimeFlag, f.image.Name(), "warm-up", "/bin/true")
	if r.Err != nil {
		return fmt.Errorf("first container: %w: %s%s", r.Err, r.Stdout, r.Stderr)
	}
	if diff := f.daemon.AwaitCensus(before, "file "); diff != "" {
		return fmt.Errorf("the first container left more than files:\n%s", diff)
	}
	return nil
}

// ours reports whether the runtime under test is this project's. The same
// suites run against the runc shim; where only we promise something, they ask.
func ours() bool { return *runtimeFlag == rig.OurRuntime }

// skip skips a test and counts it for the summary.
func skip(t *testing.T, reason string) {
	t.Helper()
	skipped.Add(1)
	t.Skip(reason)
}
