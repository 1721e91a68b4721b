package shim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Runtime is what a shim binary joins to this package.
type Runtime struct {
	// Name is the runtime's type, as in "io.containerd.numa.v1".
	Name string
	// Version and Revision are of the binary, for -v and the log.
	Version, Revision string
	// VersionText is printed by -v after those, one or more lines without a
	// newline at the end. May be empty.
	VersionText string

	// Info answers -info. The options are the runtime's, nil if there are
	// none. containerd asks before every container with idmapped mounts, so
	// this must take no more than milliseconds.
	Info func(ctx context.Context, options *anypb.Any) (*types.RuntimeInfo, error)

	// MountClaims gives the mount types and transforms that containerd shall
	// leave to the service instead of its mount manager. start asks. May be
	// nil: none.
	MountClaims func() (mountTypes, transforms []string)

	// Serve makes the service of a daemon. It is called once, before the
	// socket is served.
	Serve func(ctx context.Context, d Daemon) (Service, error)

	// Delete kills and cleans up what is left of one container whose daemon
	// forgot it or died. containerd asks for it after every container, so it
	// must be quick where nothing is left. It must be idempotent, must cope
	// with a bundle of which any part is missing, and may run at the same
	// time as another Delete of the same container in another process. ctx
	// ends shortly before containerd loses patience.
	Delete func(ctx context.Context, t Target) (Exit, error)

	// tuning replaces the package's intervals and places, for tests.
	tuning *tuning
}

// Daemon is what a [Service] knows of the process that it runs in.
type Daemon struct {
	// Namespace is containerd's, of every container of this daemon.
	Namespace string
	// ID is of the container that the daemon was started for.
	ID string
	// Group is the id that its containers share: the sandbox's, or ID.
	Group string
	// Bundle is the bundle directory of the container ID, absolute.
	Bundle string
	// Address is containerd's gRPC address, as containerd gave it.
	Address string
	// Debug tells that containerd logs at debug level.
	Debug bool
	// Publisher takes events to containerd.
	Publisher *Publisher
	// Shutdown ends the daemon in good order. It returns at once and may be
	// called any number of times.
	Shutdown func()
}

// Service is what a daemon serves.
type Service interface {
	// Register adds the service under every name that containerd may use.
	Register(*ttrpc.Server)
	// Idle tells that the service holds no container and makes none. It must
	// not block.
	Idle() bool
	// Running tells that something of a container is under way which the
	// daemon's end would cut off: the container is being made or deleted, a
	// process of it has not exited, or output of one has not reached its
	// reader. It must not block.
	Running() bool
	// Close ends the service at the daemon's end: it refuses to make
	// containers from then on. Events that it publishes are still delivered.
	Close(ctx context.Context) error
}

// Target is one container that the delete command is about.
type Target struct {
	Namespace, ID string
	// Bundle is its directory, absolute. It and its content may be missing.
	Bundle string
	// Address is containerd's gRPC address; may be empty.
	Address string
	Debug   bool
}

// Exit tells how a container ended.
type Exit struct {
	Pid    uint32
	Status uint32
	// At is when; the zero time stands for now.
	At time.Time
}

// tuning holds what tests need shorter or elsewhere.
type tuning struct {
	socketDir  string
	unattended time.Duration
	quiet      time.Duration
	termMemory time.Duration
}

func (r Runtime) tuned() tuning {
	if r.tuning != nil {
		return *r.tuning
	}
	return tuning{socketDir: defaultSocketDir, unattended: unattendedLimit, quiet: quietTime, termMemory: termMemory}
}

// The commands of a shim binary. No command means to be the daemon.
const (
	commandStart  = "start"
	commandDelete = "delete"
	commandServe  = ""
)

// flags is the command line. The names are containerd's, except for group.
type flags struct {
	namespace, id, address string
	bundle                 string
	socket, debugSocket    string
	group                  string // start tells its daemon, if it is not id
	debug, info, version   bool
	command                string
}

// Run does what the command line asks and returns the exit code for it. An
// error is written to standard error.
func Run(ctx context.Context, r Runtime) int {
	// Otherwise writing an answer to a containerd that went away would kill
	// this process before it has cleaned up. Not signal.Ignore: children
	// would inherit that.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)

	if err := r.run(ctx, os.Args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		fmt.Fprintf(os.Stderr, "%s: %v\n", r.Name, err)
		return 1
	}
	return 0
}

func (r Runtime) run(ctx context.Context, argv []string) error {
	f, err := parseFlags(argv)
	if err != nil {
		return err
	}
	switch {
	case f.version:
		return r.printVersion(os.Stdout, filepath.Base(argv[0]))
	case f.info:
		return r.printInfo(ctx, os.Stdin, os.Stdout)
	}
	if err := f.validate(); err != nil {
		return err
	}
	ctx = log.WithLogger(ctx, log.L.WithField("runtime", r.Name))
	switch f.command {
	case commandStart:
		log.L.Logger.SetOutput(io.Discard)
		return r.start(f)
	case commandDelete:
		log.L.Logger.SetLevel(log.WarnLevel) // containerd takes every line as a warning
		return r.delete(ctx, f)
	default:
		return r.serve(ctx, f)
	}
}

func parseFlags(argv []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet(argv[0], flag.ContinueOnError)
	set.BoolVar(&f.debug, "debug", false, "log at debug level")
	set.BoolVar(&f.version, "v", false, "print the version and exit")
	set.BoolVar(&f.version, "version", false, "print the version and exit")
	set.BoolVar(&f.info, "info", false, "read the runtime's options from stdin, print its description, and exit")
	set.StringVar(&f.namespace, "namespace", "", "containerd's `namespace` of the container")
	set.StringVar(&f.id, "id", "", "`id` of the container")
	set.StringVar(&f.address, "address", "", "containerd's gRPC `address`")
	set.StringVar(&f.bundle, "bundle", "", "bundle `directory`, if it is not the working directory")
	set.StringVar(&f.socket, "socket", "", "serve on this socket `path` instead of the inherited socket")
	set.StringVar(&f.debugSocket, "debug-socket", "", "serve profiles on this socket `path` instead of the inherited socket")
	set.StringVar(&f.group, "group", "", "`id` of the group that the daemon serves, if it is not -id")
	set.String("publish-binary", "", "accepted for containerd, and ignored: events go by ttrpc")

	set.SetOutput(io.Discard)
	err := set.Parse(argv[1:])
	if errors.Is(err, flag.ErrHelp) {
		set.SetOutput(os.Stdout)
		fmt.Fprintf(os.Stdout, "usage: %s [flags] [start | delete]\n", filepath.Base(argv[0]))
		set.PrintDefaults()
	}
	if err != nil {
		return flags{}, err
	}
	f.command = set.Arg(0)
	if set.NArg() > 1 {
		return flags{}, fmt.Errorf("unexpected argument %q after %q", set.Arg(1), f.command)
	}
	return f, nil
}

func (f flags) validate() error {
	switch f.command {
	case commandStart, commandDelete, commandServe:
	default:
		return fmt.Errorf("unknown command %q: want %s or %s, or none to serve", f.command, commandStart, commandDelete)
	}
	if err := validateID(f.namespace); err != nil {
		return fmt.Errorf("-namespace: %w", err)
	}
	if err := validateID(f.id); err != nil {
		return fmt.Errorf("-id: %w", err)
	}
	if f.address == "" && f.command == commandStart {
		return errors.New("-address: missing containerd's gRPC address")
	}
	if f.group != "" {
		if err := validateGroup(f.group); err != nil {
			return fmt.Errorf("-group: %w", err)
		}
	}
	return nil
}

// bundleDir returns the absolute bundle directory.
func (f flags) bundleDir() (string, error) {
	if f.bundle != "" {
		return filepath.Abs(f.bundle)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the bundle from the working directory: %w", err)
	}
	return dir, nil
}

func (r Runtime) printVersion(w io.Writer, binary string) error {
	text := fmt.Sprintf("%s:\n  Version:    %s\n  Revision:   %s\n  Go version: %s\n",
		binary, r.Version, r.Revision, runtime.Version())
	if r.VersionText != "" {
		text += r.VersionText + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

func (r Runtime) printInfo(ctx context.Context, in io.Reader, out io.Writer) error {
	input, err := readInput(in)
	if err != nil {
		return err
	}
	var options *anypb.Any
	if len(input) > 0 {
		options = new(anypb.Any)
		if err := proto.Unmarshal(input, options); err != nil {
			return fmt.Errorf("parse runtime options from stdin (%d bytes): %w", len(input), err)
		}
	}
	info, err := r.Info(ctx, options)
	if err != nil {
		return err
	}
	data, err := proto.Marshal(info)
	if err != nil {
		return fmt.Errorf("encode runtime info: %w", err)
	}
	if _, err := out.Write(data); err != nil {
		return fmt.Errorf("write runtime info to stdout: %w", err)
	}
	return nil
}
