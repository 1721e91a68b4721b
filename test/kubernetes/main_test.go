package kubernetes

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode"

	corev1 "k8s.io/api/core/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

var (
	layersFlag  = flag.Int("layers", 50, "layers of the many-layered image")
	podsFlag    = flag.Int("pods", 30, "pods that are started at once in the burst")
	shimDirFlag = flag.String("shim-dir", "", "`directory` of the shim binary (default <source>/bin)")
	debugFlag   = flag.Bool("debug", false, "let containerd and shims log at debug level")
	logFlag     = flag.Bool("log", false, "print the logs even if nothing failed")
)

var shared *suite

func TestMain(m *testing.M) {
	flag.Parse()
	ctx := context.Background()
	s, err := begin(ctx, *shimDirFlag, *layersFlag, *debugFlag)
	if errors.Is(err, rig.ErrNotRoot) {
		fmt.Println("kubernetes: skipped:", err)
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes:", err)
		os.Exit(1)
	}
	shared = s
	code := 1
	if err := s.warmUp(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes:", err)
	} else {
		code = m.Run()
	}
	if code != 0 || *logFlag {
		fmt.Fprintf(os.Stderr, "%s---- containerd's log\n%s", s.kubelet.process.tail(), s.node.Daemon.Log())
	}
	if err := s.end(); err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes:", err)
		code = 1
	}
	os.Exit(code)
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
	name := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return '-'
	}, strings.TrimPrefix(s.t.Name(), "Test"))
	const most = 40
	return fmt.Sprintf("%s-%d", strings.Trim(name[:min(len(name), most)], "-"), len(s.pods))
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
