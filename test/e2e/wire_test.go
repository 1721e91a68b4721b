package e2e

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// dial connects to the shim of a container, as containerd does.
func (s *scene) dial(id string) net.Conn {
	s.t.Helper()
	address, err := os.ReadFile(filepath.Join(s.daemon.Bundle(id), "address"))
	s.must(err)
	conn, err := net.Dial("unix", strings.TrimPrefix(string(address), "unix://"))
	s.must(err)
	return conn
}

const taskService = "containerd.task.v3.Task"

// TestUnknownCalls asks the shim for what there is not, past containerd.
func TestUnknownCalls(t *testing.T) {
	if !ours() {
		skip(t, "what another shim does then is its own affair")
	}
	s := begin(t)
	v := s.victim()
	client := ttrpc.NewClient(s.dial(v.ID()))
	defer client.Close()
	v.descriptors++ // this connection
	garbage := wrapperspb.Bytes([]byte{0xff, 0xff, 0xff, 0xff})
	for name, c := range map[string]struct {
		service, method string
		request         any
		words           string
	}{
		"unknown service":        {"containerd.task.v9.Task", "State", &taskv3.StateRequest{}, "Unimplemented"},
		"unknown method":         {taskService, "Destroy", &taskv3.StateRequest{}, "Unimplemented"},
		"nothing":                {"", "", &taskv3.StateRequest{}, "Unimplemented"},
		"garbage as a request":   {taskService, "State", garbage, ""},
		"container that escapes": {taskService, "State", &taskv3.StateRequest{ID: "../../x"}, "NotFound"},
		"create in no bundle":    {taskService, "Create", &taskv3.CreateTaskRequest{ID: "x", Bundle: "/no/such/bundle"}, "/no/such/bundle"},
		"create in a directory":  {taskService, "Create", &taskv3.CreateTaskRequest{ID: "x", Bundle: t.TempDir()}, "config.json: no such file or directory"},
		"create in a relative":   {taskService, "Create", &taskv3.CreateTaskRequest{ID: "x", Bundle: "x"}, "not an absolute path"},
		"create of a path":       {taskService, "Create", &taskv3.CreateTaskRequest{ID: "a/b", Bundle: "/tmp"}, `id "a/b"`},
		"create of nothing":      {taskService, "Create", &taskv3.CreateTaskRequest{}, `id ""`},
	} {
		s.sub(t, name, func() {
			v.refused(client.Call(s.ctx, c.service, c.method, c.request, &taskv3.StateResponse{}), c.words)
		})
	}
	v.stop()
}

// TestBrokenFrames sends the shim what is no message of ttrpc (its PROTOCOL.md:
// length, stream, type, flags, data). Only that connection suffers.
func TestBrokenFrames(t *testing.T) {
	if !ours() {
		skip(t, "what another shim does then is its own affair")
	}
	s := begin(t)
	v := s.victim()
	frame := func(length uint32, data []byte) []byte {
		header := binary.BigEndian.AppendUint32(nil, length)
		header = binary.BigEndian.AppendUint32(header, 1)
		return append(append(header, 1, 0), data...)
	}
	noise := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(noise)
	const tooLarge = 5 << 20 // ttrpc takes 4 MiB
	for name, data := range map[string][]byte{
		"half a header":      {0, 0, 0},
		"no data":            frame(100, nil),
		"largest length":     frame(1<<32-1, noise),
		"too large":          frame(tooLarge, bytes.Repeat([]byte{1}, tooLarge)),
		"data is no request": frame(4, []byte{0xff, 0xff, 0xff, 0xff}),
		"noise":              noise,
	} {
		s.sub(t, name, func() {
			conn := s.dial(v.ID())
			_ = conn.SetDeadline(time.Now().Add(bound))
			_, _ = conn.Write(data) // the shim may hang up before it has read all
			v.unharmedBeside(conn)
		})
	}
	v.stop()
}

// unharmedBeside sees that the victim is served while a connection is broken,
// and that nothing of it stays once it is closed.
func (v *victim) unharmedBeside(conn io.Closer) {
	v.t.Helper()
	before := v.descriptors
	v.descriptors = 0
	v.unharmed()
	v.must(conn.Close())
	v.descriptors = before
	v.unharmed()
}
