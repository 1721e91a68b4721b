package cri

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// unknownExit is what CRI says of a container whose shim it can't ask any more.
// The event with the true status comes later and does not change that.
const unknownExit = 255

// endedAway is the exit code that CRI tells, in the end, of a container that
// ended with code while containerd was away. The runc shim's are lost: in
// containerd's reload they are deleted as leaked.
func endedAway(code int32) int32 {
	if !ours() {
		return unknownExit
	}
	return code
}

// exitTopic is the topic of containerd's events that tell an exit.
const exitTopic = "/tasks/exit"

// wantExits counts how often the end of a container has been told.
func (s *scene) wantExits(c *kubelet.Container, n int) {
	s.t.Helper()
	exits := 0
	for _, e := range s.events.Events(c.ID) {
		if e.Topic == exitTopic && e.Process == "" {
			exits++
		}
	}
	want(s.t, "exits told of "+c.Config.Metadata.Name, exits, n)
}

// TestRestart stops containerd as a service manager does, under a pod: a
// container that ends meanwhile is told as ended with its own status, the
// others go on and are as usable as before, with logs without a gap.
func TestRestart(t *testing.T) {
	for name, end := range map[string]func(*rig.Daemon) error{"stopped": (*rig.Daemon).Stop, "killed": (*rig.Daemon).Kill} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			var options []kubelet.PodOption
			if mapped() {
				options = append(options, kubelet.UserNamespace(100000))
			}
			p := s.pod(options...)
			running := s.run(p, "running", []string{"/payload", "wait", "6"}, kubelet.Image(kubelet.LayeredImage))
			writing := s.run(p, "writing", []string{"/bin/sh", "-c", "i=0; while sleep 0.02; do i=$((i+1)); echo $i; done"})
			ending := s.run(p, "ending", []string{"/payload", "wait", "8"})
			for _, c := range []*kubelet.Container{running, ending} {
				s.must(c.AwaitLog("ready"))
			}
			s.must(writing.AwaitLog("3\n"))
			pid, shim := s.pid(running), s.shim(p)
			s.endBehindBack(ending, func() { s.must(end(s.Daemon)) })
			s.must(s.Daemon.Start(s.ctx))
			s.must(s.AwaitReady(s.ctx))

			want(t, "exit code of the one that ended meanwhile", s.exited(ending).ExitCode, endedAway(8))
			want(t, "shim", s.shim(p), shim)
			want(t, "pid", s.pid(running), pid)
			want(t, "output of a command", s.shell(running, "echo hello"), "hello")
			status, err := p.Status(s.ctx)
			s.must(err)
			want(t, "sandbox", status.State, runtimeapi.PodSandboxState_SANDBOX_READY)
			s.must(s.run(p, "later", []string{"/payload", "wait"}).AwaitLog("ready"))

			var last string
			rig.Eventually(bound, func() bool {
				before := last
				last = s.log(writing, "stdout")
				return before != "" && len(last) > len(before)
			})
			s.must(writing.Stop(s.ctx, 0))
			lines, next := s.log(writing, "stdout"), 1
			for number := 0; ; next++ {
				if n, _ := fmt.Sscanf(lines, "%d\n", &number); n == 0 {
					break
				}
				if number != next {
					t.Fatalf("line %d of the log is %d", next, number)
				}
				lines = lines[len(fmt.Sprint(number))+1:]
			}
			s.must(running.Stop(s.ctx, unhurried))
			want(t, "exit code", s.exited(running).ExitCode, 6)
			s.wantExits(running, 1)
		})
	}
}

// endBehindBack ends a container, by a signal to its process, after containerd
// has been ended.
func (s *scene) endBehindBack(c *kubelet.Container, endContainerd func()) {
	s.t.Helper()
	pid := s.pid(c)
	endContainerd()
	process, err := os.FindProcess(pid)
	s.must(err)
	s.must(process.Signal(syscall.SIGTERM))
	if !rig.Eventually(bound, func() bool { return rig.ProcessName(pid) == "" }) {
		s.t.Fatalf("%s does not end while containerd is away: %s", c.Config.Metadata.Name, rig.ProcessName(pid))
	}
}

// TestKilledAgainAndAgain kills containerd many times under many pods. None is
// lost, none restarted; and the exits of those that end in between are told
// once, with their statuses.
func TestKilledAgainAndAgain(t *testing.T) {
	s := begin(t)
	type life struct {
		c    *kubelet.Container
		pid  int
		code int32
		over bool
	}
	var lives []*life
	for i := range *podsFlag {
		var options []kubelet.PodOption
		if mapped() {
			options = append(options, kubelet.UserNamespace(uint32(100000+i*rig.Mapped)))
		}
		code := int32(i%100 + 1)
		c := s.run(s.pod(options...), "main", []string{"/payload", "wait", fmt.Sprint(code)}, kubelet.Image(kubelet.LayeredImage))
		s.must(c.AwaitLog("ready"))
		lives = append(lives, &life{c: c, pid: s.pid(c), code: code})
	}
	for kill := range *killsFlag {
		ending := lives[kill%len(lives)]
		if kill < len(lives)/2 {
			s.endBehindBack(ending.c, func() { s.must(s.Daemon.Kill()) })
			ending.over = true
		} else {
			s.must(s.Daemon.Kill())
		}
		s.must(s.Daemon.Start(s.ctx))
		s.must(s.AwaitReady(s.ctx))
		for i, l := range lives {
			if l.over {
				want(t, fmt.Sprintf("after kill %d: exit code of pod %d", kill, i), s.exited(l.c).ExitCode, endedAway(l.code))
				continue
			}
			want(t, fmt.Sprintf("after kill %d: state of pod %d", kill, i), s.status(l.c).State, runtimeapi.ContainerState_CONTAINER_RUNNING)
			want(t, fmt.Sprintf("after kill %d: process of pod %d", kill, i), s.pid(l.c), l.pid)
		}
	}
	for _, l := range lives {
		if !l.over {
			s.must(l.c.Stop(s.ctx, unhurried))
			want(t, "exit code", s.exited(l.c).ExitCode, l.code)
			s.wantExits(l.c, 1)
		}
	}
}
