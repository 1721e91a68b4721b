package kubernetes

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

var (
	flags      = rig.NewSuiteFlags()
	layersFlag = flag.Int("layers", 50, "layers of the many-layered image")
	podsFlag   = flag.Int("pods", 30, "pods that are started at once in the burst")
)

var shared *suite

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	rig.ExitSuite("kubernetes", code, err)
}

// run starts the cluster and runs the tests. It returns inside the isolation
// only.
func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	s, err := begin(ctx, flags.ShimDir, *layersFlag, flags.Debug)
	if err != nil {
		return 1, err
	}
	defer func() {
		if code != 0 || err != nil || flags.Log {
			fmt.Fprintf(os.Stderr, "%s---- containerd's log\n%s", s.kubelet.process.tail(), s.node.Daemon.Log())
		}
		err = errors.Join(err, s.end())
	}()
	shared = s
	if err := s.warmUp(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// scene is one test's use of the cluster.
type scene struct {
	*suite
	t    *testing.T
	ctx  context.Context
	pods []string

	leaks []string // prefixes of what the census may find more of
}

// act takes the census and arranges that, after the test, its pods are deleted
// and a second census is the same.
func act(t *testing.T) *scene {
	t.Helper()
	s := &scene{suite: shared, t: t, ctx: context.Background()}
	before := s.node.Daemon.TakeCensus()
	t.Cleanup(func() {
		for _, name := range s.pods {
			err := s.cluster.API.Delete(s.ctx, podPath(name), 1)
			if err := errors.Join(ignoreNotFound(err), s.awaitGone(s.ctx, name)); err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
		if err := s.collect(s.ctx); err != nil {
			t.Errorf("clean up: %v", err)
		}
		if diff := s.node.Daemon.AwaitCensus(before, s.leaks...); diff != "" {
			t.Errorf("the machine is not as it was before the test:\n%s", diff)
		}
	})
	return s
}

func ignoreNotFound(err error) error {
	var answer *apiError
	if errors.As(err, &answer) && answer.status == 404 {
		return nil
	}
	return err
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// name is a pod's name made of the test's.
func (s *scene) name() string {
	const most = 40
	return fmt.Sprintf("%s-%d", rig.IDOf(s.t.Name(), most), len(s.pods))
}

// create creates a pod.
func (s *scene) create(options ...podOption) string {
	s.t.Helper()
	p := newPod(s.name(), options...)
	s.must(s.cluster.API.Create(s.ctx, podsPath, p, nil))
	s.pods = append(s.pods, p.Name)
	return p.Name
}

// run creates a pod and waits until it runs.
func (s *scene) run(options ...podOption) *corev1.Pod {
	s.t.Helper()
	return s.awaitPod(s.create(options...), "running", running)
}

// finish creates a pod that is not restarted and waits until it has ended.
func (s *scene) finish(options ...podOption) *corev1.Pod {
	s.t.Helper()
	return s.awaitPod(s.create(append(options, restart(corev1.RestartPolicyNever))...), "ended", ended)
}

func (s *scene) awaitPod(name, what string, wanted func(*corev1.Pod) bool) *corev1.Pod {
	s.t.Helper()
	p, err := s.await(s.ctx, name, what, wanted)
	s.must(err)
	return p
}

// delete deletes a pod and waits until it has gone.
func (s *scene) delete(name string, grace int64) {
	s.t.Helper()
	s.must(s.cluster.API.Delete(s.ctx, podPath(name), grace))
	s.must(s.awaitGone(s.ctx, name))
}

func (s *scene) log(p *corev1.Pod, container string) string {
	s.t.Helper()
	text, err := s.output(p, container)
	s.must(err)
	return text
}

// pid is a process of a container of the pod, found by its cgroup.
func (s *scene) pid(p *corev1.Pod, container string) int {
	s.t.Helper()
	id := strings.TrimPrefix(status(p, container).ContainerID, "containerd://")
	task, err := s.node.Daemon.Client().LoadContainer(kubelet.Context(s.ctx), id)
	s.must(err)
	t, err := task.Task(kubelet.Context(s.ctx), nil)
	s.must(err)
	return int(t.Pid())
}

func want[T comparable](t *testing.T, what string, got, wanted T) {
	t.Helper()
	if got != wanted {
		t.Errorf("%s: got %v, want %v", what, got, wanted)
	}
}
