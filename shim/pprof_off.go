//go:build !shim_pprof

package shim

import (
	"errors"
	"net"
)

// debugServed tells whether a daemon has something to serve on the debug
// socket. net/http is not linked without the tag.
const debugServed = false

func serveDebug(net.Listener) error {
	return errors.New("built without profiles (tag shim_pprof)")
}
