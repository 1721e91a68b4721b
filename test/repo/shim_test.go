package repo

import (
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tags are those of the Makefile.
const tags = "no_grpc,seccomp,netgo,osusergo"

// maxSize is what the shim's file may have, in bytes. Every node pays for it
// in page cache, and every container's init maps it.
const maxSize = 13_900_000

// modules are linked into the shim. Every line is paid for on every node: a
// new one needs a reason.
var modules = []string{
	"github.com/aperturerobotics/protobuf-go-lite", // by go-criu
	"github.com/checkpoint-restore/go-criu/v8",     // criu's messages, by libcontainer
	"github.com/cilium/ebpf",                       // device rules of cgroup v2, by libcontainer
	"github.com/containerd/cgroups/v3",             // the metrics' messages
	"github.com/containerd/console",                // by libcontainer
	"github.com/containerd/containerd/api",         // the API
	"github.com/containerd/errdefs",
	"github.com/containerd/errdefs/pkg",
	"github.com/containerd/go-runc", // an OCI runtime's commands
	"github.com/containerd/log",
	"github.com/containerd/ttrpc",
	"github.com/containerd/typeurl/v2",
	"github.com/coreos/go-systemd/v22",          // the systemd cgroup driver, by libcontainer
	"github.com/cyphar/filepath-securejoin",     // by libcontainer
	"github.com/godbus/dbus/v5",                 // the systemd cgroup driver
	"github.com/moby/sys/capability",            // by libcontainer
	"github.com/moby/sys/mountinfo",             // by libcontainer
	"github.com/moby/sys/user",                  // by libcontainer
	"github.com/moby/sys/userns",                // by libcontainer
	"github.com/mrunalp/fileutils",              // by libcontainer
	"github.com/opencontainers/cgroups",         // by libcontainer
	"github.com/opencontainers/go-digest",       // by the API
	"github.com/opencontainers/image-spec",      // by the API
	"github.com/opencontainers/runc",            // libcontainer
	"github.com/opencontainers/runtime-spec",    // config.json
	"github.com/opencontainers/selinux",         // by libcontainer
	"github.com/pelletier/go-toml/v2",           // the settings
	"github.com/seccomp/libseccomp-golang",      // by libcontainer
	"github.com/sirupsen/logrus",                // by containerd's log and libcontainer
	"github.com/vishvananda/netlink",            // by libcontainer
	"github.com/vishvananda/netns",              // by netlink
	"golang.org/x/net",                          // BPF assembler, by libcontainer
	"golang.org/x/sys",                          // system calls
	"google.golang.org/genproto/googleapis/rpc", // a message of ttrpc's
	"google.golang.org/grpc",                    // status codes, by ttrpc and errdefs
	"google.golang.org/protobuf",
}

// buildShim builds the shim as the Makefile does.
func buildShim(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), module)
	cmd := exec.CommandContext(t.Context(), "make", "--no-print-directory", "build", "BIN="+path)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	return path
}

func TestWhatTheShimConsistsOf(t *testing.T) {
	path := buildShim(t)
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	linked := map[string]bool{}
	for _, m := range info.Deps {
		linked[m.Path] = true
	}
	for _, m := range modules {
		if !linked[m] {
			t.Errorf("%s is not linked any more: take it off the list", m)
		}
		delete(linked, m)
	}
	for m := range linked {
		t.Errorf("%s has come to be linked", m)
	}

	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d modules, %d bytes", len(info.Deps), st.Size())
	if st.Size() > maxSize {
		t.Errorf("the shim has %d bytes, more than %d", st.Size(), maxSize)
	}
	if out, err := exec.CommandContext(t.Context(), path, "-v").Output(); err != nil || !strings.Contains(string(out), "libcontainer") {
		t.Errorf("-v: %v, %q; want it to name libcontainer's version", err, out)
	}
	// The dynamic loader of another distribution may be missing or older.
	if out, _ := exec.CommandContext(t.Context(), "ldd", path).CombinedOutput(); !strings.Contains(string(out), "not a dynamic executable") {
		t.Errorf("the shim is not static: %s", out)
	}
}
