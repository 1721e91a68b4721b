package external

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

func TestExits(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r rig) {
		host := r.run(t, specOf(newID(), "sleep", "1000"))
		for _, c := range []struct {
			script string
			want   uint32
		}{
			{"exit 0", 0}, {"exit 7", 7}, {"exit 255", 255}, {"kill -TERM $$", 143}, {"kill -KILL $$", 137}, {"kill -SEGV $$", 139},
		} {
			if got := host.exec(shell(c.script)...).Status(t); got != c.want {
				t.Errorf("exec of %s: %d, want %d", c.script, got, c.want)
			}
			// A PID namespace's init is deaf to signals of its own.
			if strings.HasPrefix(c.script, "exit") {
				if got := r.run(t, specOf(newID(), shell(c.script)...)).init.Status(t); got != c.want {
					t.Errorf("init with %s: %d, want %d", c.script, got, c.want)
				}
			}
		}
	})
}

func TestSignals(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r rig) {
		for sig, want := range map[unix.Signal]uint32{unix.SIGKILL: 137, unix.SIGTERM: 5} {
			out, w, err := os.Pipe()
			must(t, err)
			q := request(t, specOf(newID(), shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done")...))
			q.Stdio.Stdout = w
			c := r.createFrom(t, q)
			w.Close()
			must(t, c.Start(t.Context()))
			_, err = out.Read(make([]byte, 10))
			must(t, err)
			out.Close()
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
			eventually(t, "nobody is left to be signalled", func() bool {
				return errors.Is(c.KillAll(sig), os.ErrProcessDone)
			})
			if err := c.Start(t.Context()); err == nil {
				t.Error("started after its exit")
			}
		}
	})
}

// Start returns when init has gone on, and succeeds only once.
func TestStart(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r rig) {
		c := r.create(t, specOf(newID(), "sleep", "1000"))
		if data, err := os.ReadFile(c.bundle + "/init.pid"); err != nil || string(data) != fmt.Sprint(c.init.Pid()) {
			t.Errorf("init.pid has %q, %v", data, err)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Start(cancelled); err == nil {
			t.Error("a start that was given up went on")
		}
		must(t, c.Start(t.Context()))
		eventually(t, "the program runs", func() bool {
			cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.init.Pid()))
			must(t, err)
			return string(cmdline) == "sleep\x001000\x00"
		})
		if err := c.Start(t.Context()); err == nil {
			t.Error("started twice")
		}
		if _, err := r.Engine.Create(t.Context(), task.CreateRequest{ID: c.id, Root: c.root, Bundle: c.bundle, Spec: specOf(c.id, "true")}); !errdefs.IsAlreadyExists(err) {
			t.Errorf("a second container of that id: %v", err)
		}
		if c.init.Gone() {
			t.Error("which ended the first")
		}
	})
}

// Creates that fail leave nothing, and say why in the runtime's words.
func TestCreateFails(t *testing.T) {
	type words map[string]string
	for name, c := range map[string]struct {
		spoil func(*specs.Spec)
		words words
	}{
		"no program": {func(s *specs.Spec) { s.Process.Args[0] = "nonexistent" },
			words{"runc": `runc create failed: unable to start container process: error during container init: exec: "nonexistent": executable file not found in $PATH`, "crun": "executable file `nonexistent` not found in $PATH"}},
		"mount": {func(s *specs.Spec) {
			s.Mounts[2].Source, s.Mounts[2].Type, s.Mounts[2].Options = "/nonexistent", "bind", []string{"bind"}
		}, words{"runc": "no such file or directory", "crun": "No such file or directory"}},
		"hook": {func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}} },
			words{"runc": "hook", "crun": ""}}, // crun may say first that a pipe is broken
		"namespace": {func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/nonexistent" },
			words{"runc": "/nonexistent", "crun": "/nonexistent"}},
		"cpus": {func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "99999"} },
			words{"runc": "cpuset", "crun": "cpuset"}},
	} {
		t.Run(name, func(t *testing.T) {
			eachRuntime(t, func(t *testing.T, r rig) {
				before, err := os.ReadFile("/proc/self/mountinfo")
				must(t, err)
				noGrowth(t, 2, func() {
					spec := specOf(newID(), "true")
					c.spoil(spec)
					q := request(t, spec)
					_, err := r.Engine.Create(t.Context(), q)
					if err == nil || !strings.Contains(err.Error(), c.words[r.name]) {
						t.Errorf("%v, want %q", err, c.words[r.name])
					}
					nothingLeft(t, q)
				})
				after, err := os.ReadFile("/proc/self/mountinfo")
				must(t, err)
				if string(after) != string(before) {
					t.Error("the mount table has changed")
				}
			})
		})
	}
}

func TestRuntimeThatIsNone(t *testing.T) {
	if _, err := New("runc", removeEmpty); err == nil {
		t.Error("a runtime without a path")
	}
	for binary, words := range map[string]string{"/nonexistent": "no such file", "/bin/true": "no pid", "/bin/false": "exit status 1"} {
		q := request(t, specOf(newID(), "true"))
		if _, err := (&Engine{binary: binary, adopter: adoption, removeEmpty: removeEmpty}).Create(t.Context(), q); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", binary, err, words)
		}
	}
}

func TestExecFails(t *testing.T) {
	words := map[string]string{
		"runc": `exec failed: unable to start container process: exec: "nonexistent": executable file not found in $PATH`,
		"crun": "executable file `nonexistent` not found in $PATH",
	}
	eachRuntime(t, func(t *testing.T, r rig) {
		c := r.run(t, specOf(newID(), "sleep", "1000"))
		noGrowth(t, 3, func() {
			if _, err := c.Exec(t.Context(), processSpec("nonexistent"), task.Files{}); err == nil || !strings.Contains(err.Error(), words[r.name]) {
				t.Errorf("%v, want %q", err, words[r.name])
			}
		})
		eventually(t, "init is the only child", func() bool {
			return slices.Equal(adopted(t), []int{c.init.Pid()})
		})
	})
}

func TestPauseAndKill(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r rig) {
		for name, kill := range map[string]func(*container) error{
			"all":  func(c *container) error { return c.KillAll(unix.SIGKILL) },
			"init": func(c *container) error { return errors.Join(c.init.Signal(unix.SIGKILL), c.Resume(t.Context())) },
		} {
			t.Run(name, func(t *testing.T) {
				c := r.run(t, specOf(newID(), "sleep", "1000"))
				must(t, c.Pause(t.Context()))
				limit := int64(64 << 20)
				must(t, c.Update(t.Context(), &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}))
				if c.init.Gone() {
					t.Fatal("paused to death")
				}
				must(t, kill(c))
				if s := c.init.Status(t); s != 137 {
					t.Errorf("exit status %d", s)
				}
			})
		}
		c := r.run(t, specOf(newID(), "sleep", "1000"))
		must(t, c.Pause(t.Context()))
		must(t, c.Resume(t.Context()))
		must(t, c.Resume(t.Context())) // not an error when it runs
		if got := c.output("echo", "runs"); got != "runs\n" {
			t.Errorf("%q", got)
		}
	})
}

func TestUpdate(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r rig) {
		c := r.run(t, specOf(newID(), "sleep", "1000"))
		limit := int64(64 << 20)
		must(t, c.Update(t.Context(), &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Cpus: "0"}}))
		found := 0
		for _, dir := range cgroupDirs(c.cgroupPath()) {
			for file, want := range map[string]string{"memory.limit_in_bytes": "67108864\n", "memory.max": "67108864\n", "cpuset.cpus": "0\n"} {
				if data, err := os.ReadFile(dir + "/" + file); err == nil {
					found++
					if string(data) != want {
						t.Errorf("%s has %q", file, data)
					}
				}
			}
		}
		if found < 2 {
			t.Errorf("%d files of limits", found)
		}
	})
}

func (c *container) cgroupPath() string { return cgroupParent + "/" + c.id }

func TestPids(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r rig) {
		c := r.run(t, specOf(newID(), "sleep", "1000"))
		e := c.exec("sleep", "1000")
		want := []int{c.init.Pid(), e.Pid()}
		got, err := c.Pids()
		must(t, err)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		must(t, e.Signal(unix.SIGTERM))
		if s := e.Status(t); s != 143 {
			t.Errorf("exit status %d", s)
		}
	})
}

// A runtime may tell its features or not know the question; a program that is
// none is told from both by nobody.
func TestFeatures(t *testing.T) {
	eachRuntime(t, func(t *testing.T, r rig) {
		f, err := Features(t.Context(), r.binary)
		if err != nil {
			if r.crun() {
				t.Skip("crun tells its features since 1.8.6: ", err)
			}
			t.Fatal(err)
		}
		if f.OCIVersionMax == "" || !slices.Contains(f.MountOptions, "rbind") {
			t.Errorf("%+v", f)
		}
	})
	if _, err := Features(t.Context(), "/bin/true"); err == nil {
		t.Error("features of a program that is no runtime")
	}
}
