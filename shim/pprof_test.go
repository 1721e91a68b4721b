package shim

import (
	"context"
	"net"
	"net/http"
	"testing"
)

func TestDebugSocket(t *testing.T) {
	r := newRig(t)
	bundle := r.bundle("c1", nil)
	path, err := socketPath(r.sockets, r.address, testNamespace, "c1", true)
	if err != nil {
		t.Fatal(err)
	}
	socket := r.mustStart("c1", nil, "-debug")
	pid := r.daemon()
	if exists(path) != debugServed {
		t.Fatalf("debug socket exists: %t, profiles are served: %t", exists(path), debugServed)
	}
	if debugServed {
		client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", path)
		}}}
		response, err := client.Get("http://shim/debug/pprof/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("profile: %s", response.Status)
		}
		client.CloseIdleConnections()
	}
	r.call(r.client(socket), "Shutdown")
	r.gone(pid, socket, bundle)
	if exists(path) {
		t.Error("debug socket is left")
	}
}
