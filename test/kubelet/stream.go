package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// The streaming protocols that containerd and kubelet speak over SPDY, and
// the headers and names of their streams (k8s.io/cri-streaming).
const (
	commandProtocol = "v4.channel.k8s.io"
	forwardProtocol = "portforward.k8s.io"

	streamType    = "streamType"
	portHeader    = "port"
	requestHeader = "requestID"
)

// Streams is an exec, or an attachment to a container, with its streams open.
type Streams struct {
	Stdin  io.WriteCloser // nil where it was not asked for
	Stdout io.Reader
	Stderr io.Reader // nil with a terminal

	conn   httpstream.Connection
	result httpstream.Stream
	resize httpstream.Stream // nil without a terminal
}

// StartExec runs a command in the container with all streams.
func (c *Container) StartExec(ctx context.Context, tty bool, command ...string) (*Streams, error) {
	r, err := c.Pod.node.Runtime.Exec(ctx, &runtimeapi.ExecRequest{
		ContainerId: c.ID, Cmd: command, Tty: tty, Stdin: true, Stdout: true, Stderr: !tty,
	})
	if err != nil {
		return nil, fmt.Errorf("exec %q in %s: %w", command, c.Config.Metadata.Name, err)
	}
	return connect(r.Url, true, tty)
}

// Attach connects to the streams of the container's own process.
func (c *Container) Attach(ctx context.Context, stdin bool) (*Streams, error) {
	tty := c.Config.Tty
	r, err := c.Pod.node.Runtime.Attach(ctx, &runtimeapi.AttachRequest{
		ContainerId: c.ID, Tty: tty, Stdin: stdin, Stdout: true, Stderr: !tty,
	})
	if err != nil {
		return nil, fmt.Errorf("attach to %s: %w", c.Config.Metadata.Name, err)
	}
	return connect(r.Url, stdin, tty)
}

// connection hangs up by itself after the bound: who waits for what does not
// come gets an error.
type connection struct {
	httpstream.Connection
	end *time.Timer
}

func (c connection) Close() error {
	c.end.Stop()
	return c.Connection.Close()
}

// dial upgrades a POST of the streaming server's URL to SPDY.
func dial(url, protocol string) (httpstream.Connection, error) {
	transport, err := spdy.NewRoundTripper(nil)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set(httpstream.HeaderProtocolVersion, protocol)
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("stream from %s: %w", url, err)
	}
	defer response.Body.Close()
	conn, err := transport.NewConnection(response)
	if err != nil {
		return nil, fmt.Errorf("stream from %s: %w", url, err)
	}
	return connection{conn, time.AfterFunc(bound, func() { conn.Close() })}, nil
}

func connect(url string, stdin, tty bool) (s *Streams, err error) {
	conn, err := dial(url, commandProtocol)
	if err != nil {
		return nil, err
	}
	s = &Streams{conn: conn}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	open := func(kind string) (httpstream.Stream, error) {
		stream, err := conn.CreateStream(http.Header{streamType: {kind}})
		if err != nil {
			return nil, fmt.Errorf("open stream %s: %w", kind, err)
		}
		return stream, nil
	}
	if s.result, err = open("error"); err != nil {
		return nil, err
	}
	if stdin {
		if s.Stdin, err = open("stdin"); err != nil {
			return nil, err
		}
	}
	if s.Stdout, err = open("stdout"); err != nil {
		return nil, err
	}
	if tty {
		s.resize, err = open("resize")
		return s, err
	}
	s.Stderr, err = open("stderr")
	return s, err
}

// Resize tells the terminal's new size.
func (s *Streams) Resize(columns, rows uint16) error {
	return json.NewEncoder(s.resize).Encode(struct{ Width, Height uint16 }{columns, rows})
}

// Close hangs up. The runtime may do so as soon as it hears of the first stream
// that ends, so that there is nobody to say goodbye to: that is no error.
func (s *Streams) Close() { _ = s.conn.Close() }

// commandStatus is the part of a Kubernetes Status that says how a command
// ended.
type commandStatus struct {
	Status, Message, Reason string
	Details                 struct {
		Causes []struct{ Reason, Message string }
	}
}

// Wait reads how the command ended: its exit status, or the error that the
// runtime had. Output is to be read before, or at the same time.
func (s *Streams) Wait() (code int, err error) {
	b, err := io.ReadAll(s.result)
	if err != nil {
		return 0, fmt.Errorf("read how the command ended: %w", err)
	}
	var status commandStatus
	if err := json.Unmarshal(b, &status); err != nil {
		return 0, fmt.Errorf("how the command ended is %q: %w", b, err)
	}
	switch {
	case status.Status == "Success":
		return 0, nil
	case status.Reason != "NonZeroExitCode":
		return 0, errors.New(status.Message)
	}
	for _, cause := range status.Details.Causes {
		if cause.Reason == "ExitCode" {
			return strconv.Atoi(cause.Message)
		}
	}
	return 0, fmt.Errorf("no exit code in %s", b)
}

// Forward is one connection to a port of a pod.
type Forward struct {
	httpstream.Stream // the data
	failure           httpstream.Stream
	conn              httpstream.Connection
}

// Forward connects to a port on the pod's loopback interface, as `kubectl
// port-forward` does.
func (p *Pod) Forward(ctx context.Context, port int32) (*Forward, error) {
	r, err := p.node.Runtime.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: p.ID, Port: []int32{port}})
	if err != nil {
		return nil, fmt.Errorf("forward port %d: %w", port, err)
	}
	conn, err := dial(r.Url, forwardProtocol)
	if err != nil {
		return nil, err
	}
	f := &Forward{conn: conn}
	header := http.Header{portHeader: {fmt.Sprint(port)}, requestHeader: {"0"}}
	header.Set(streamType, "error")
	if f.failure, err = conn.CreateStream(header); err == nil {
		header.Set(streamType, "data")
		f.Stream, err = conn.CreateStream(header)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("forward port %d: %w", port, err), conn.Close())
	}
	return f, nil
}

// HangUp ends the forwarding and returns the error that the runtime had.
func (f *Forward) HangUp() error {
	b, err := io.ReadAll(f.failure)
	if message := strings.TrimSpace(string(b)); message != "" {
		err = errors.Join(err, errors.New(message))
	}
	_ = f.conn.Close() // as in Streams.Close
	return err
}
