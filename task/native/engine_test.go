package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/rootfs"
	"containerd-shim-numa-v1/task"
)

func TestExits(t *testing.T) {
	for _, c := range []struct {
		script string
		want   uint32
	}{
		{"exit 0", 0}, {"exit 7", 7}, {"exit 255", 255}, {"kill -TERM $$", 143}, {"kill -KILL $$", 137}, {"kill -SEGV $$", 139}, {"kill -64 $$", 192},
	} {
		t.Run(c.script, func(t *testing.T) {
			// A PID namespace's init is deaf to signals of its own.
			host := run(t, specOf(newID(), "sleep", "1000"))
			if got := host.exec(shell(c.script)...).Status(t); got != c.want {
				t.Errorf("exec: %d, want %d", got, c.want)
			}
			if !strings.HasPrefix(c.script, "exit") {
				return
			}
			if got := run(t, specOf(newID(), shell(c.script)...)).init.Status(t); got != c.want {
				t.Errorf("init: %d, want %d", got, c.want)
			}
		})
	}
}

func TestSignals(t *testing.T) {
	for sig, want := range map[unix.Signal]uint32{unix.SIGKILL: 137, unix.SIGTERM: 5} {
		r, w, err := os.Pipe()
		must(t, err)
		q := request(t, specOf(newID(), shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done")...))
		q.Stdio.Stdout = w
		c := createFrom(t, q)
		w.Close()
		must(t, c.Start(t.Context()))
		_, err = r.Read(make([]byte, 10))
		must(t, err)
		r.Close()
		before := time.Now()
		must(t, c.init.Signal(sig))
		if got := c.init.Status(t); got != want {
			t.Errorf("%v: exit status %d, want %d", sig, got, want)
		}
		if c.init.Exit(t).At.Before(before) || c.init.Exit(t).At.After(time.Now()) {
			t.Errorf("exit at %s", c.init.Exit(t).At)
		}
		if err := c.init.Signal(sig); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal after the exit: %v", err)
		}
		if err := c.KillAll(sig); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal to all after the exit: %v", err)
		}
		if err := c.Start(t.Context()); err == nil {
			t.Error("started after its exit")
		}
	}
}

// Start returns when init has gone on, and succeeds only once.
func TestStart(t *testing.T) {
	c := create(t, specOf(newID(), "sleep", "1000"))
	must(t, c.Start(t.Context()))
	eventually(t, "the program runs", func() bool {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.init.Pid()))
		must(t, err)
		return string(cmdline) == "sleep\x001000\x00"
	})
	if err := c.Start(t.Context()); err == nil {
		t.Error("started twice")
	}
}

// A program that has run and ended before Start looks has been started.
func TestStartOfShortPrograms(t *testing.T) {
	for range 20 {
		if s := run(t, specOf(newID(), "true")).init.Status(t); s != 0 {
			t.Errorf("exit status %d", s)
		}
	}
}

// A start that is given up, because init does not answer, ends.
func TestStartIsCancelled(t *testing.T) {
	requireV1(t)
	c := create(t, specOf(newID(), "sleep", "1000"))
	must(t, c.Pause(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// A start that was given up before it began has not begun: init still waits,
// and another start succeeds.
func TestStartWhenNobodyWaits(t *testing.T) {
	c := create(t, specOf(newID(), shell("exit 3")...))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 { // init may not have come to its waiting at first
		if err := c.Start(ended); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.Sleep(time.Millisecond)
	}
	must(t, c.Start(t.Context()))
	if s := c.init.Status(t); s != 3 {
		t.Errorf("exit status %d", s)
	}
}

// Creates that fail leave nothing, and say why in runc's words.
func TestCreateFails(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*specs.Spec)
		words string
	}{
		"no program": {func(s *specs.Spec) { s.Process.Args[0] = "nonexistent" }, `exec: "nonexistent": executable file not found in $PATH`},
		"directory":  {func(s *specs.Spec) { s.Process.Args[0] = "/proc" }, "is a directory"},
		"cwd":        {func(s *specs.Spec) { s.Process.Cwd = "/proc/nonexistent" }, "no such file or directory"},
		"mount": {func(s *specs.Spec) {
			s.Mounts[2].Source, s.Mounts[2].Type, s.Mounts[2].Options = "/nonexistent", "bind", []string{"bind"}
		}, "no such file or directory"},
		"rlimit": {func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }, "RLIMIT_X"},
		"hook":   {func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}} }, "hook"},
		// Run when init is there: it is ended, and nobody waits for it twice.
		"late hook": {func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/false"}}} }, "hook"},
		"namespace": {func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/nonexistent" }, "/nonexistent"},
		"cpus":      {func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "99999"} }, "cpuset"},
	} {
		t.Run(name, func(t *testing.T) {
			before, err := os.ReadFile("/proc/self/mountinfo")
			must(t, err)
			noGrowth(t, 2, func() {
				spec := specOf(newID(), "true")
				c.spoil(spec)
				r := request(t, spec)
				_, err := Engine{}.Create(t.Context(), r)
				if err == nil || !strings.HasPrefix(err.Error(), "runc create failed: ") || !strings.Contains(err.Error(), c.words) {
					t.Errorf("%v, want %q", err, c.words)
				}
				if left := cgroupDirs(spec.Linux.CgroupsPath); len(left) > 0 {
					t.Errorf("cgroups left: %q", left)
				}
				if left, _ := filepath.Glob(filepath.Join(r.Root, "*")); len(left) > 0 {
					t.Errorf("state left: %q", left)
				}
			})
			after, err := os.ReadFile("/proc/self/mountinfo")
			must(t, err)
			if string(after) != string(before) {
				t.Error("the mount table has changed")
			}
			if zombies := zombieChildren(t); len(zombies) > 0 {
				t.Errorf("zombies: %v", zombies)
			}
		})
	}
}

// zombieChildren are this process's children that nobody has waited for.
func zombieChildren(t testing.TB) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	var zombies []string
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[0] == "Z" && f[1] == fmt.Sprint(os.Getpid()) {
			zombies = append(zombies, path)
		}
	}
	return zombies
}

func TestExecFails(t *testing.T) {
	c := run(t, specOf(newID(), "sleep", "1000"))
	noGrowth(t, 3, func() {
		for _, p := range []*specs.Process{processSpec("nonexistent"), {Args: []string{"true"}, Cwd: "/proc/nonexistent"}, {Args: []string{"true"}, Cwd: "/", Rlimits: []specs.POSIXRlimit{{Type: "x"}}}} {
			if _, err := c.Exec(t.Context(), p, task.Files{}); err == nil || !strings.HasPrefix(err.Error(), "exec failed: ") {
				t.Errorf("%v: %v", p.Args, err)
			}
		}
	})
	if zombies := zombieChildren(t); len(zombies) > 0 {
		t.Errorf("zombies: %v", zombies)
	}
}

func TestPauseAndKill(t *testing.T) {
	for name, kill := range map[string]func(*container) error{
		"all":  func(c *container) error { return c.KillAll(unix.SIGKILL) },
		"init": func(c *container) error { return errors.Join(c.init.Signal(unix.SIGKILL), c.Resume(t.Context())) },
		// Which does not always thaw it: not with cgroup.kill in a hybrid.
		"all, shared PID namespace": func(c *container) error { return errors.Join(c.KillAll(unix.SIGKILL), c.Resume(t.Context())) },
	} {
		t.Run(name, func(t *testing.T) {
			spec := specOf(newID(), "sleep", "1000")
			if strings.Contains(name, "shared") {
				spec = sharedPIDs(spec)
			}
			c := run(t, spec)
			must(t, c.Pause(t.Context()))
			must(t, c.Update(t.Context(), memoryLimit(64<<20)))
			if c.init.Gone() {
				t.Fatal("paused to death")
			}
			must(t, kill(c))
			if s := c.init.Status(t); s != 137 {
				t.Errorf("exit status %d", s)
			}
			must(t, c.Resume(t.Context())) // not an error afterwards
		})
	}
}

// The processes that an init leaves in a shared PID namespace can be ended,
// and are when the container is deleted.
func TestLeftoversInSharedPIDNamespace(t *testing.T) {
	for name, end := range map[string]func(*container){
		"killed":  func(c *container) { must(t, c.KillAll(unix.SIGKILL)) },
		"deleted": func(*container) {},
	} {
		t.Run(name, func(t *testing.T) {
			spec := specOf(newID(), shell("for i in 0 1 2 3 4; do for j in 0 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; done; exit 3")...)
			spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
			c := run(t, spec)
			if s := c.init.Status(t); s != 3 {
				t.Errorf("exit status %d", s)
			}
			pids, err := c.Pids()
			must(t, err)
			if len(pids) != 50 {
				t.Errorf("%d processes are left", len(pids))
			}
			must(t, c.KillAll(0))
			end(c)
			eventually(t, "deleted", func() bool { return c.Delete(t.Context()) == nil })
			for _, pid := range pids {
				// A zombie is the system's init to reap.
				stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				if err == nil && !strings.Contains(string(stat), ") Z ") && strings.Contains(string(stat), "(sleep)") {
					t.Errorf("still there: %s", stat)
				}
			}
			must(t, c.Delete(t.Context())) // a second time there is nothing to do
		})
	}
}

// A detached root filesystem is attached in the container alone.
func TestHandover(t *testing.T) {
	requireContainers(t)
	dir := t.TempDir()
	for _, d := range []string{"lower", "upper", "work"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "")) // an overlay cannot be on an overlay
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	for _, d := range []string{"lower", "upper", "work"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	tree(t, filepath.Join(dir, "lower"))
	must(t, os.WriteFile(filepath.Join(dir, "lower", "file"), []byte("of the image"), 0o644))

	spec := specOf(newID(), "sleep", "1000")
	target := filepath.Join(t.TempDir(), "rootfs")
	must(t, os.Mkdir(target, 0o711))
	spec.Root.Path = target
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	tree, err := rootfs.Assemble(t.Context(), []rootfs.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"lowerdir=" + filepath.Join(dir, "lower"), "upperdir=" + filepath.Join(dir, "upper"), "workdir=" + filepath.Join(dir, "work"),
	}}}, rootfs.Options{})
	must(t, err)
	r := request(t, spec)
	r.Inherited, err = tree.Handover(target)
	must(t, err)
	c := createFrom(t, r)
	must(t, tree.Close())
	must(t, c.Start(t.Context()))
	if got := c.output("cat", "/file"); got != "of the image" {
		t.Errorf("%q", got)
	}
	c.output("sh", "-c", "echo written > /written")
	if data, err := os.ReadFile(filepath.Join(dir, "upper", "written")); err != nil || string(data) != "written\n" {
		t.Errorf("upper: %q, %v", data, err)
	}
	if got, _ := os.ReadFile("/proc/self/mountinfo"); string(got) != string(mounts) {
		t.Errorf("the host's mount table has changed:\n%s\nwas\n%s", got, mounts)
	}
	if entries, _ := os.ReadDir(target); len(entries) > 0 {
		t.Error("attached on the host")
	}
	// After the exec that libcontainer's init ends in.
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.init.Pid()))
	must(t, err)
	if len(fds) != 3 {
		t.Errorf("init has descriptors %q", fds)
	}
	c.remove()
}

func TestFeatures(t *testing.T) {
	f := Features()
	if f.OCIVersionMax != specs.Version || f.OCIVersionMin == "" {
		t.Errorf("versions %s to %s", f.OCIVersionMin, f.OCIVersionMax)
	}
	for _, o := range []string{"rro", "rbind", "nosymfollow"} {
		if !slices.Contains(f.MountOptions, o) {
			t.Errorf("no mount option %s", o)
		}
	}
	for _, ns := range []string{"user", "pid", "mount", "network", "ipc", "uts", "cgroup", "time"} {
		if !slices.Contains(f.Linux.Namespaces, ns) {
			t.Errorf("no %s namespace", ns)
		}
	}
	if !*f.Linux.MountExtensions.IDMap.Enabled || len(f.Hooks) != 6 || len(f.Linux.Capabilities) < 40 {
		t.Errorf("%+v", f)
	}
	if s := f.Linux.Seccomp; !*s.Enabled || len(s.Actions) == 0 || len(s.Archs) == 0 || f.Annotations[annotationLibseccomp] == "" {
		t.Errorf("built without seccomp: %+v", s)
	}
	// As runc writes its own.
	if v := LibcontainerVersion(); strings.HasPrefix(v, "v") || f.Annotations[annotationCheckpoint] != "true" {
		t.Errorf("%v", f.Annotations)
	}
}

// A poststop hook that fails does not keep its container from being removed,
// by whichever way.
func TestPoststopHookFails(t *testing.T) {
	for name, hook := range map[string]specs.Hook{
		"fails":   {Path: "/bin/false"},
		"missing": {Path: "/nonexistent"},
	} {
		spec := func() *specs.Spec {
			s := specOf(newID(), "true")
			s.Hooks = &specs.Hooks{Poststop: []specs.Hook{hook}}
			return s
		}
		t.Run(name+"/deleted", func(t *testing.T) {
			c := run(t, spec())
			c.init.Status(t)
			must(t, c.Delete(t.Context()))
		})
		t.Run(name+"/removed", func(t *testing.T) {
			r, _ := orphan(t, spec(), false)
			remove(t, r)
		})
		t.Run(name+"/never created", func(t *testing.T) {
			s := spec()
			s.Process.Args = []string{"/nonexistent"}
			r := request(t, s)
			_, err := Engine{}.Create(t.Context(), r)
			if err == nil || strings.Contains(err.Error(), "hook") {
				t.Errorf("error: %v", err)
			}
		})
	}
}
