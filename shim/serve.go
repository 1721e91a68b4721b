package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

const (
	// firstSocket is the descriptor of the listener that a daemon inherits;
	// the debug listener is the next.
	firstSocket = 3

	// How much garbage, in percent of what is alive but at least of 4 MiB,
	// makes the Go runtime collect: for the first time, and from then on. The
	// first collection costs more memory than it frees where a container or
	// two were made: what the runtime needs to know of a collected heap takes
	// half a MiB or more, for ever. Most daemons never come to it. Those that
	// do are kept small: a host has one per pod, and they do little.
	firstGCPercent = 100
	gcPercent      = 40

	signalBacklog = 32

	commFile  = "/proc/self/comm"
	commLimit = 15 // bytes; proc_pid_comm(5)
)

// serve is the daemon.
func (r Runtime) serve(ctx context.Context, f flags) (err error) {
	tune()
	w, err := openLog()
	if err != nil {
		return err
	}
	logger := setupLog(ctx, w, f)
	ctx = log.WithLogger(ctx, logger)
	// From here on standard error is the log, which is read entry by entry.
	defer func() {
		if err != nil {
			logger.WithError(err).Error("daemon ends")
		}
	}()

	signals := make(chan os.Signal, signalBacklog)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1)

	bundle, err := f.bundleDir()
	if err != nil {
		return err
	}
	listener, err := inherit(f.socket, firstSocket)
	if err != nil {
		return err
	}
	defer listener.Close()
	sockets := []claimed{claimedBy(listener)}
	var service Service
	// Once: in the end, a next daemon may have the same files. A daemon that
	// leaves containers behind leaves its socket as well, as one that died.
	releaseOnce := sync.OnceFunc(func() {
		if service == nil || service.Idle() {
			release(bundle, sockets)
		}
	})
	defer releaseOnce()
	if f.debug && debugServed {
		debugListener, err := inherit(f.debugSocket, firstSocket+1)
		if err != nil {
			return err
		}
		sockets = append(sockets, claimedBy(debugListener))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := serveDebug(debugListener); err != nil && !errors.Is(err, net.ErrClosed) {
				logger.WithError(err).Warn("debug socket ends")
			}
		}()
		defer func() {
			debugListener.Close()
			<-ended
		}()
	}

	stop := make(chan struct{})
	d := Daemon{
		Namespace: f.namespace,
		ID:        f.id,
		Group:     f.group,
		Bundle:    bundle,
		Address:   f.address,
		Debug:     f.debug,
		Publisher: NewPublisher(ctx, ttrpcAddress(f.address), f.namespace),
		Shutdown:  sync.OnceFunc(func() { close(stop) }),
	}
	if d.Group == "" {
		d.Group = d.ID
	}
	defer d.Publisher.Close()
	service, err = r.Serve(ctx, d)
	if err != nil {
		return fmt.Errorf("make the service: %w", err)
	}
	logger.WithFields(log.Fields{"version": r.Version, "revision": r.Revision, "group": d.Group}).Debug("serving")

	e := ender{logger: logger, service: service, stop: stop, signals: signals, termMemory: r.tuned().termMemory, log: w}
	return e.serve(ctx, r.tuned(), d, listener, releaseOnce)
}

// tune sets up the Go runtime and the process's name for a daemon.
func tune() {
	debug.SetGCPercent(firstGCPercent)
	// Garbage at once, and so cleaned up by the first collection.
	runtime.AddCleanup(new(*byte), func(percent int) { debug.SetGCPercent(percent) }, gcPercent)
	if os.Getenv(procsEnv) == "" {
		runtime.GOMAXPROCS(daemonProcs)
	}
	// Executing /proc/self/exe named the process "exe".
	name := filepath.Base(os.Args[0])
	_ = os.WriteFile(commFile, []byte(name[:min(len(name), commLimit)]), 0)
}

func setupLog(ctx context.Context, w *logWriter, f flags) *log.Entry {
	_ = log.SetFormat(log.TextFormat) // fails for unknown formats only
	log.L.Logger.SetOutput(w)
	if f.debug {
		log.L.Logger.SetLevel(log.DebugLevel)
	}
	return log.G(ctx).WithFields(log.Fields{"pid": os.Getpid(), "namespace": f.namespace, "id": f.id})
}

// ttrpcAddress is where containerd takes events: what it said, or beside its
// gRPC socket, as its default is.
func ttrpcAddress(grpcAddress string) string {
	if address := os.Getenv(ttrpcAddressEnv); address != "" {
		return address
	}
	if grpcAddress == "" {
		return ""
	}
	return grpcAddress + ".ttrpc"
}

// inherit returns the listener that start bound, or one on the given path.
func inherit(path string, fd int) (*net.UnixListener, error) {
	var file *os.File
	if path == "" {
		// Asked first: without a socket there, the descriptor may be one that
		// the Go runtime opened, and not be ours to close.
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
			return nil, fmt.Errorf("descriptor %d is not a listening socket: only %s starts a daemon, or -socket and -debug-socket name the sockets",
				fd, commandStart)
		}
		file = os.NewFile(uintptr(fd), fmt.Sprintf("inherited socket %d", fd))
	} else {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("find socket %s: %w", path, err)
		}
		if len(absolute) > socketPathLimit {
			return nil, fmt.Errorf("socket path %s has %d bytes, the limit is %d", absolute, len(absolute), socketPathLimit)
		}
		if file, err = claim(absolute); err != nil {
			return nil, err
		}
	}
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", file.Name(), err)
	}
	unixListener, ok := listener.(*net.UnixListener)
	if !ok {
		listener.Close()
		return nil, fmt.Errorf("listen on %s: it is a %s socket, not a unix one", file.Name(), listener.Addr().Network())
	}
	return unixListener, nil
}

// claimed is a socket's file as it was when the daemon took it over.
type claimed struct {
	path string
	dev  uint64
	ino  uint64
}

// claimedBy asks the kernel what the listener was bound to: the daemon need
// not know how the path came about.
func claimedBy(l *net.UnixListener) claimed {
	c := claimed{path: l.Addr().String()}
	var stat unix.Stat_t
	if err := unix.Lstat(c.path, &stat); err == nil {
		c.dev, c.ino = stat.Dev, stat.Ino
	}
	return c
}

// release removes the sockets and the record of the first in the bundle. Only
// the files that the daemon took over: it still listens, so nobody of this
// package replaced them, but others may have.
func release(bundle string, sockets []claimed) {
	for _, c := range sockets {
		var stat unix.Stat_t
		if err := unix.Lstat(c.path, &stat); err == nil && stat.Dev == c.dev && stat.Ino == c.ino {
			os.Remove(c.path)
		}
	}
	name := filepath.Join(bundle, addressName)
	if address, err := os.ReadFile(name); err == nil && string(address) == unixScheme+sockets[0].path {
		os.Remove(name)
	}
}
