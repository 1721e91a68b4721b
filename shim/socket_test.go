package shim

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shim-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// stale leaves a socket that nobody listens on.
func stale(t *testing.T, path string) {
	t.Helper()
	f, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestSocketPath(t *testing.T) {
	// printf %s <address>/<namespace>/<group>[/debug] | sha256sum
	for debug, want := range map[bool]string{
		false: "/run/containerd/s/8e264b1ad347c80aee5f3dea6e4bb53d72026989222058782273d5db043c7723",
		true:  "/run/containerd/s/ddbdfb7af5ceff24b0d2ddc30aff7f5124fd781c8851437485f62039b920b4e2",
	} {
		got, err := socketPath("/run/containerd/s", "/run/containerd/containerd.sock", "k8s.io", "pod1", debug)
		if err != nil || got != want {
			t.Errorf("debug %t: %s, %v; want %s", debug, got, err, want)
		}
	}
	if got, err := socketPath("/"+strings.Repeat("d", 40), "/a", "n", "g", false); err != nil || len(got) != socketPathLimit {
		t.Errorf("%s, %v", got, err)
	}
	_, err := socketPath("/"+strings.Repeat("d", 41), "/a", "n", "g", false)
	if err == nil || !strings.Contains(err.Error(), "shorter socket_dir") {
		t.Errorf("too long: %v", err)
	}
}

func TestClaim(t *testing.T) {
	dir := filepath.Join(socketDir(t), "made", "s")
	path := filepath.Join(dir, "x")
	old := unix.Umask(0)
	defer unix.Umask(old)

	first, err := claim(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, path: os.ModeSocket | 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	if _, err := claim(path); !errors.Is(err, errInUse) {
		t.Fatalf("second claim: %v", err)
	}
	first.Close()
	if answer, err := dial(path); answer != refusing || err != nil {
		t.Fatalf("dial: %v, %v", answer, err)
	}
	second, err := claim(path)
	if err != nil {
		t.Fatalf("claim of a dead daemon's: %v", err)
	}
	defer second.Close()
	if answer, err := dial(path); answer != listening || err != nil {
		t.Fatalf("dial: %v, %v", answer, err)
	}
	if names := files(t, dir); len(names) != 1 {
		t.Errorf("files %v", names)
	}
}

// A daemon too busy to accept is no dead one.
func TestDialFullBacklog(t *testing.T) {
	path := filepath.Join(socketDir(t), "x")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if answer, err := dial(path); answer != listening || err != nil {
		t.Fatalf("dial: %v, %v", answer, err)
	}
}

func TestClaimRace(t *testing.T) {
	const claimers = 16
	path := filepath.Join(socketDir(t), "x")
	for range 20 {
		stale(t, path)
		var winners, losers atomic.Int32
		var group sync.WaitGroup
		listeners := make(chan *os.File, claimers)
		for range claimers {
			group.Go(func() {
				f, err := claim(path)
				switch {
				case err == nil:
					winners.Add(1)
					listeners <- f
				case errors.Is(err, errInUse):
					losers.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		group.Wait()
		close(listeners)
		if winners.Load() != 1 || losers.Load() != claimers-1 {
			t.Fatalf("%d claimed, %d found it in use", winners.Load(), losers.Load())
		}
		if answer, err := dial(path); answer != listening || err != nil {
			t.Fatalf("dial: %v, %v", answer, err)
		}
		for f := range listeners {
			f.Close()
		}
		os.Remove(path)
	}
}

func TestRemoveRefusing(t *testing.T) {
	path := filepath.Join(socketDir(t), "x")
	f, err := claim(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := removeRefusing(path); err != nil {
		t.Fatal(err)
	}
	if answer, _ := dial(path); answer != listening {
		t.Fatal("removed a live daemon's socket")
	}
	f.Close()
	if err := removeRefusing(path); err != nil {
		t.Fatal(err)
	}
	if answer, err := dial(path); answer != absent || err != nil {
		t.Fatalf("dial: %v, %v", answer, err)
	}
}
