package cri

import (
	"io"
	"net"
	"strings"
	"testing"

	"containerd-shim-numa-v1/test/kubelet"
)

func (s *scene) ip(p *kubelet.Pod) string {
	s.t.Helper()
	status, err := p.Status(s.ctx)
	s.must(err)
	return status.Network.GetIp()
}

// TestPodNetwork has two pods on the bridge, one of them in a user namespace
// where that can be: each has an address, from the other and from the node
// what it serves is reached, and loopback is up and the pod's own.
func TestPodNetwork(t *testing.T) {
	s := begin(t)
	var options []kubelet.PodOption
	if mapped() {
		options = append(options, kubelet.UserNamespace(100000))
	}
	server, client := s.pod(options...), s.pod()
	address := s.ip(server)
	want(t, "that the pods have one address", address == s.ip(client), false)
	s.must(s.run(server, "server", []string{"/payload", "serve", ":8080", "served"}).AwaitLog("ready"))
	peer := s.run(server, "peer", idle)
	c := s.run(client, "client", idle)
	want(t, "answer to the other pod", s.shell(c, "/payload dial "+address+":8080"), "served")
	want(t, "answer on the pod's loopback", s.shell(peer, "/payload dial 127.0.0.1:8080"), "served")
	conn, err := net.Dial("tcp", net.JoinHostPort(address, "8080"))
	s.must(err)
	defer conn.Close()
	answer, err := io.ReadAll(conn)
	s.must(err)
	want(t, "answer to the node", string(answer), "served\n")
	for _, c := range []*kubelet.Container{c, peer} {
		want(t, "interfaces", s.shell(c, "cat /proc/net/dev | grep -c :"), "2")
	}
	want(t, "name server", s.shell(c, "grep nameserver /etc/resolv.conf"), "nameserver 10.96.0.10")
}

// TestHostNetwork sees the node's interfaces and host name from the pod.
func TestHostNetwork(t *testing.T) {
	s := begin(t)
	c := s.run(s.pod(kubelet.HostNetwork), "main", idle)
	if devices := s.shell(c, "cat /proc/net/dev"); !strings.Contains(devices, "pods0:") {
		t.Errorf("the pods' bridge is not among %s", devices)
	}
}

// TestPortForward reaches a port that only the pod's loopback has, twice; and
// one that nobody serves is an error.
func TestPortForward(t *testing.T) {
	s := begin(t)
	p := s.pod()
	s.must(s.run(p, "server", []string{"/payload", "serve", "127.0.0.1:8081"}).AwaitLog("ready"))
	for _, text := range []string{"hello\n", strings.Repeat("a longer text\n", 10000)} {
		f, err := p.Forward(s.ctx, 8081)
		s.must(err)
		go io.WriteString(f, text)
		echoed := make([]byte, len(text))
		_, err = io.ReadFull(f, echoed)
		s.must(err)
		want(t, "what came back", string(echoed) == text, true)
		s.must(f.Close())
		s.must(f.HangUp())
	}
	f, err := p.Forward(s.ctx, 8082)
	s.must(err)
	if err := f.HangUp(); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("forward to a port without a server: %v", err)
	}
}
