//go:build shim_pprof

package shim

import (
	"net"
	"net/http"
	_ "net/http/pprof" // registers its pages with http.DefaultServeMux
	"time"
)

// debugServed tells whether a daemon has something to serve on the debug
// socket.
const debugServed = true

const debugHeaderTimeout = 10 * time.Second

// serveDebug serves profiles until the listener is closed, and cuts off those
// that are being written then.
func serveDebug(l net.Listener) error {
	server := http.Server{ReadHeaderTimeout: debugHeaderTimeout}
	defer server.Close()
	return server.Serve(l)
}
