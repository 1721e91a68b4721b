package task

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/api/types"
)

// Who looks into the bundle finds what the root filesystem took.
func TestRootfsReport(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a file system")
	}
	noLeak(t)
	r := newRig(t)
	request := createRequest(t, "c")
	request.Rootfs = []*types.Mount{
		{Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=0700"}},
	}
	_, err := r.Create(t.Context(), request)
	must(t, err)
	data, err := os.ReadFile(filepath.Join(request.Bundle, rootfsFile))
	must(t, err)
	var got rootfsReport
	must(t, json.Unmarshal(data, &got))
	if got.Mounts != 1 || got.Syscalls == 0 || got.Tier != "auto" || got.SharedBase {
		t.Errorf("report %+v", got)
	}
	// The specs of these tests have a root that is not the bundle's.
	c, err := r.container("c")
	must(t, err)
	if onHost := c.hostRootfs; got.OnHost != onHost || (got.HostOperations == 1) != onHost {
		t.Errorf("on the host: %v, report %+v", onHost, got)
	}
	st, err := os.Stat(filepath.Join(request.Bundle, rootfsFile))
	must(t, err)
	if st.Mode() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if len(data) > 512 {
		t.Errorf("%d bytes: %s", len(data), data)
	}
	r.engine.last().init.exit(0)
	r.wait("c", "")
	r.delete("c", "")
}

func TestRootfsReportIsMissing(t *testing.T) {
	noLeak(t)
	r := newRig(t)
	i := r.create("none") // without mounts
	c, err := r.container("none")
	must(t, err)
	if _, err := os.Stat(filepath.Join(c.bundle, rootfsFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no root filesystem was made, but %v", err)
	}
	i.init.exit(0)
	r.wait("none", "")
	r.delete("none", "")
}
