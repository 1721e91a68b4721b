package shim

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

const sandboxAnnotation = "io.kubernetes.cri.sandbox-id"

func pod(id string) map[string]string { return map[string]string{sandboxAnnotation: id} }

func readFile(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func readLink(t testing.TB, name string) string {
	t.Helper()
	target, err := os.Readlink(name)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func TestStart(t *testing.T) {
	for name, legacy := range map[string]bool{"bootstrap": false, "legacy": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			bundle := r.bundle("c1", nil)
			var stdin []byte
			if !legacy {
				dir := r.sockets
				stdin = r.params("c1", func(p *bootstrap.BootstrapParams) { p.SocketDir = &dir })
			}
			path := r.mustStart("c1", stdin)
			want, err := socketPath(r.sockets, r.address, testNamespace, "c1", false)
			if err != nil || path != want {
				t.Fatalf("listens on %s, want %s, %v", path, want, err)
			}
			if got := readFile(t, bundle+"/address"); got != "unix://"+want {
				t.Errorf("address file %q", got)
			}
			if got := readLink(t, bundle+"/s"); got != r.sockets {
				t.Errorf("socket directory link %q", got)
			}

			pid := r.daemon()
			proc := fmt.Sprintf("/proc/%d", pid)
			for _, fd := range []string{"0", "1", "2"} {
				if got := readLink(t, proc+"/fd/"+fd); got != os.DevNull {
					t.Errorf("descriptor %s is %s", fd, got)
				}
			}
			if got := readLink(t, proc+"/cwd"); got != bundle {
				t.Errorf("working directory %s", got)
			}
			if group, err := unix.Getpgid(pid); err != nil || group != pid {
				t.Errorf("process group %d of %d, %v", group, pid, err)
			}
			own, err := strconv.Atoi(readFile(t, "/proc/self/oom_score_adj"))
			if err != nil {
				t.Fatal(err)
			}
			if got := readFile(t, proc+"/oom_score_adj"); got != strconv.Itoa(min(own+1, 1000)) {
				t.Errorf("OOM score %s, this process %d", got, own)
			}
			wantArgs := []string{"/usr/bin/containerd-shim-test-v1", "-namespace", testNamespace, "-id", "c1", "-address", r.address}
			if got := cmdline(pid); !slices.Equal(got, wantArgs) {
				t.Errorf("command line %q", got)
			}
			if env := strings.Split(readFile(t, proc+"/environ"), "\x00"); !slices.Contains(env, "GOMAXPROCS=2") ||
				!slices.Contains(env, "TTRPC_ADDRESS="+r.address+".ttrpc") {
				t.Errorf("environment %q", env)
			}
			r.call(r.client(path), "Hold")
			if got := readFile(t, proc+"/comm"); got != "containerd-shim" {
				t.Errorf("name %q", got)
			}
		})
	}
}

func TestStartJoinsGroup(t *testing.T) {
	r := newRig(t)
	r.bundle("pod1", pod("pod1"))
	r.bundle("app1", pod("pod1"))
	r.bundle("app2", map[string]string{"io.containerd.runc.v2.group": "my group", sandboxAnnotation: "pod1"})
	path := r.mustStart("pod1", r.params("pod1", nil))
	if got := r.mustStart("app1", nil); got != path {
		t.Errorf("the pod's container got %s, the pod %s", got, path)
	}
	if got := readFile(t, r.bundles+"/app1/address"); got != "unix://"+path {
		t.Errorf("address file %q", got)
	}
	r.daemon()
	other := r.mustStart("app2", nil, "-debug")
	if other == path || len(r.daemons()) != 2 {
		t.Errorf("a container of another group got %s, daemons %v", other, r.daemons())
	}
	var described anypb.Any
	if err := r.client(other).Call(context.Background(), testService, "Describe", &emptypb.Empty{}, &described); err != nil {
		t.Fatal(err)
	}
	if want := strings.Join([]string{testNamespace, "app2", "my group", r.bundles + "/app2", r.address, "true"}, " "); described.TypeUrl != want {
		t.Errorf("daemon is %q, want %q", described.TypeUrl, want)
	}
}

func TestStartReplacesDeadDaemon(t *testing.T) {
	r := newRig(t)
	r.bundle("c1", nil)
	path := r.mustStart("c1", r.params("c1", nil))
	first := r.daemon()
	r.kill(first)
	if answer, err := dial(path); answer != refusing || err != nil {
		t.Fatalf("dial: %v, %v", answer, err)
	}
	if got := r.mustStart("c1", r.params("c1", nil)); got != path {
		t.Errorf("listens on %s, before on %s", got, path)
	}
	if r.daemon() == first {
		t.Error("same daemon")
	}
	r.call(r.client(path), "Hold")
}

func TestConcurrentStarts(t *testing.T) {
	const starts = 16
	for name, withStale := range map[string]bool{"fresh": false, "stale": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			want, err := socketPath(r.sockets, r.address, testNamespace, "pod1", false)
			if err != nil {
				t.Fatal(err)
			}
			if withStale {
				if err := os.Mkdir(r.sockets, 0o700); err != nil {
					t.Fatal(err)
				}
				stale(t, want)
			}
			var group sync.WaitGroup
			for i := range starts {
				id := "c" + strconv.Itoa(i)
				r.bundle(id, pod("pod1"))
				group.Go(func() {
					if path, err := r.start(id, r.params(id, nil)); err != nil || path != want {
						t.Errorf("start %s: %s, %v", id, path, err)
					}
				})
			}
			group.Wait()
			r.daemon()
			r.call(r.client(want), "Hold")
			if names := files(t, r.sockets); len(names) != 1 {
				t.Errorf("sockets %v", names)
			}
		})
	}
}

// containerd kills a start that it has no time for any more. The next one finds
// its way, and what the killed one left goes by itself.
func TestStartKilledAtRandom(t *testing.T) {
	const starts = 20
	r := newRig(t)
	bundle := r.bundle("c1", nil)
	var took time.Duration
	for i := range starts {
		began := time.Now()
		cmd := r.shim(bundle, append(r.flags("c1"), commandStart)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if took > 0 {
			// Spread over all of it, and a little beyond.
			time.Sleep(took * time.Duration(i) / (starts - 4))
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
		if took == 0 {
			took = time.Since(began)
		}
		path := r.mustStart("c1", nil)
		r.call(r.client(path), "Release")
		r.daemon()
		for _, pid := range r.daemons() {
			r.kill(pid) // so that each round begins with a socket that refuses
		}
	}
	r.unattended = 300 * time.Millisecond
	path := r.mustStart("c1", nil)
	r.eventually("daemon ends", func() bool { return len(r.daemons()) == 0 })
	if exists(path) {
		t.Error("its socket is left")
	}
}

func TestStartFailureLeavesNothing(t *testing.T) {
	tests := map[string]struct {
		prepare func(r *rig, bundle string)
		stdin   func(r *rig) []byte
		err     string
	}{
		"bad config.json": {prepare: func(r *rig, b string) { r.write(b+"/config.json", []byte("{")) }, err: "parse config.json"},
		"no config.json":  {prepare: func(_ *rig, b string) { os.Remove(b + "/config.json") }, err: "no such file"},
		"garbage":         {stdin: func(*rig) []byte { return []byte("hello\xff\xfe") }, err: "parse stdin"},
		"of another id":   {stdin: func(r *rig) []byte { return r.params("c2", nil) }, err: `of id "c2"`},
		"socket directory is a file": {prepare: func(r *rig, _ string) { r.write(r.sockets, nil) },
			err: "make socket directory"},
		"path too long": {stdin: func(r *rig) []byte {
			dir := r.dir + "/" + strings.Repeat("d", 60)
			return r.params("c1", func(p *bootstrap.BootstrapParams) { p.SocketDir = &dir })
		}, err: "shorter socket_dir"},
		"no such cgroup": {stdin: func(r *rig) []byte {
			return legacyOptions(r, &options.Options{ShimCgroup: "/no-such-cgroup-" + filepath.Base(r.dir)})
		}, err: "move daemon"},
		"bundle cannot be written": {prepare: func(r *rig, b string) {
			if err := os.Mkdir(b+"/address", 0o700); err != nil {
				r.Fatal(err)
			}
		}, err: "record the daemon's address"},
		"nobody reads the answer": {err: "write the answer"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			bundle := r.bundle("c1", nil)
			if tc.prepare != nil {
				tc.prepare(r, bundle)
			}
			before := files(t, r.bundles)
			stdin := r.params("c1", nil)
			if tc.stdin != nil {
				stdin = tc.stdin(r)
			}
			cmd := r.shim(bundle, append(r.flags("c1"), commandStart)...)
			cmd.Stdin = bytes.NewReader(stdin)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if name == "nobody reads the answer" {
				broken, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				broken.Close()
				defer w.Close()
				cmd.Stdout = w
			}
			if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 {
				t.Fatalf("exit %v", err)
			}
			if !strings.Contains(stderr.String(), tc.err) {
				t.Errorf("says %q, want %q", stderr.String(), tc.err)
			}
			if pids := r.daemons(); len(pids) > 0 {
				t.Errorf("daemons %v are left", pids)
			}
			if names := files(t, r.sockets); len(names) > 0 {
				t.Errorf("sockets %v are left", names)
			}
			// An address directory stands for what cannot be written, and
			// undoing may remove it.
			after := files(t, r.bundles)
			if name == "bundle cannot be written" {
				before = slices.DeleteFunc(before, func(s string) bool { return s == "c1/address" })
				after = slices.DeleteFunc(after, func(s string) bool { return s == "c1/address" })
			}
			if !slices.Equal(before, after) {
				t.Errorf("bundle had %v, has %v", before, after)
			}
		})
	}
}

func TestShimCgroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make cgroups")
	}
	r := newRig(t)
	name := "/" + filepath.Base(r.dir)
	dirs, err := cgroupDirs(name)
	if err != nil {
		t.Fatal(err)
	}
	// In one hierarchy: with v1, the others lack it.
	dir := dirs[slices.IndexFunc(dirs, func(d string) bool { return len(dirs) == 1 || strings.Contains(d, "/pids/") })]
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("cannot make a cgroup: %v", err)
	}
	t.Cleanup(func() {
		eventually(t, "cgroup is empty", func() bool { return unix.Rmdir(dir) == nil })
	})
	opts := &options.Options{ShimCgroup: name}
	for id, stdin := range map[string][]byte{
		"legacy": legacyOptions(t, opts),
		"modern": r.params("modern", func(p *bootstrap.BootstrapParams) {
			if err := p.AddExtension(opts); err != nil {
				t.Fatal(err)
			}
		}),
	} {
		r.bundle(id, nil)
		path := r.mustStart(id, stdin)
		pid := r.daemon()
		if got := readFile(t, fmt.Sprintf("/proc/%d/cgroup", pid)); !strings.Contains(got+"\n", ":"+name+"\n") {
			t.Errorf("%s: daemon's cgroups %s", id, got)
		}
		r.kill(pid)
		os.Remove(path)
	}
	// Before the cgroup's removal: its Cleanup runs after this function.
	for _, pid := range r.daemons() {
		r.kill(pid)
	}
}

func TestSchedCore(t *testing.T) {
	r := newRig(t)
	r.bundle("c1", nil)
	t.Setenv(schedCoreEnv, "1")
	_, err := r.start("c1", nil)
	if err != nil && strings.Contains(err.Error(), "core scheduling cookie") {
		if files(t, r.sockets) != nil || len(r.daemons()) > 0 {
			t.Error("a failed start left something")
		}
		t.Skipf("kernel or machine without core scheduling: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.daemon()
}

func TestOnlySameUserMayCall(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be another user")
	}
	r := newRig(t)
	r.bundle("c1", nil)
	path := r.mustStart("c1", nil)
	for name, mode := range map[string]os.FileMode{r.dir: 0o755, r.sockets: 0o755, path: 0o666} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	dialAs := func(uid uint32) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), envRole+"="+roleDial, envDial+"="+path)
		cmd.Dir = "/"
		cmd.SysProcAttr = credential(uid)
		return cmd
	}
	if out, err := dialAs(0).CombinedOutput(); err != nil {
		t.Fatalf("the same user: %v: %s", err, out)
	}
	cmd := dialAs(65534)
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "call:") {
		t.Fatalf("another user: exit %d: %s", cmd.ProcessState.ExitCode(), out)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
