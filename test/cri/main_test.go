package cri

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
	"containerd-shim-numa-v1/test/vm"
)

var (
	flags            = rig.NewSuiteFlags()
	containerdFlag   = flag.String("containerd", "2", "containerd `version` to test with: 2, 2.2 or 1.7")
	registrationFlag = flag.String("registration", "numa", "`way` in which the shim is configured: numa, configpath, inline, runc; or reference, the runc shim")

	layersFlag = flag.Int("layers", 50, "layers of the many-layered image")
	podsFlag   = flag.Int("pods", 10, "pods that run while containerd is killed")
	killsFlag  = flag.Int("kills", 10, "times containerd is killed under them")
)

// fixture is what all tests share. It is made once, in TestMain, and not
// changed afterwards.
type fixture struct {
	*kubelet.Node
	events       *rig.Recorder
	registration kubelet.Registration
}

var (
	shared  *fixture
	skipped atomic.Int32
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	rig.ExitSuite("cri", code, err)
}

// run sets the fixture up, runs the tests and reports. It returns inside the
// isolation only.
func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	machine, err := kubelet.Enter(ctx, *containerdFlag)
	if err != nil {
		return 1, err
	}
	dir, err := rig.RequireShim(flags.ShimDir)
	if err != nil {
		return 1, err
	}
	registrations, err := kubelet.Registrations(machine, dir)
	if err != nil {
		return 1, err
	}
	registration, ok := registrations[*registrationFlag]
	if !ok {
		return 1, fmt.Errorf("-registration=%s: there are numa, configpath, inline, runc and reference", *registrationFlag)
	}
	machine.Path += ":" + vm.CriuDir()
	node, err := kubelet.Start(ctx, kubelet.Config{
		Machine: machine, ShimDir: dir, Debug: flags.Debug, Layers: *layersFlag,
		Handlers: map[string]kubelet.Registration{"numa": registration},
	})
	if err != nil {
		return 1, err
	}
	defer func() {
		if code != 0 || err != nil || flags.Log {
			fmt.Fprintf(os.Stderr, "---- containerd's log\n%s----\n", node.Daemon.Log())
		}
		err = errors.Join(err, node.Close())
	}()
	shared = &fixture{Node: node, registration: registration}
	if shared.events, err = node.Daemon.Record(kubelet.Context(ctx)); err != nil {
		return 1, err
	}
	defer shared.events.Close()
	if err := shared.warmUp(ctx); err != nil {
		return 1, err
	}
	code = m.Run()
	fmt.Printf("cri: %s on containerd %s: %d tests skipped\n", *registrationFlag, machine.Version, skipped.Load())
	return code, nil
}

// warmUp runs one pod, so that what the first one makes and none removes
// (directories of sockets and image volumes, the bridge, kubepods) is in every later census.
func (f *fixture) warmUp(ctx context.Context) error {
	p, err := f.RunPod(ctx, "warm-up")
	if err != nil {
		return err
	}
	var options []kubelet.ContainerOption
	if !strings.HasPrefix(f.Version, "1.") {
		options = append(options, imageVolume(kubelet.BaseImage, "/image"))
	}
	_, err = p.Run(ctx, "main", []string{"/payload", "wait"}, options...)
	return errors.Join(err, p.Remove(ctx))
}

// ours reports whether the shim under test is this project's.
func ours() bool { return *registrationFlag != "reference" }

// old reports whether this is containerd 1.7.
func old() bool { return strings.HasPrefix(shared.Version, "1.") }

// attached reports whether the registration's options say to attach root
// filesystems on the host.
func attached() bool { return *registrationFlag == "configpath" || *registrationFlag == "inline" }

// mapped reports whether kubelet's pods in user namespaces can be run. Where
// they can't, TestUserNamespace asserts why.
func mapped() bool { return !attached() && !old() }

// skip skips a test and counts it for the summary.
func skip(t *testing.T, reason string) {
	t.Helper()
	skipped.Add(1)
	t.Skip(reason)
}
