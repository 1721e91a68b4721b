package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// command is one of the tool's words.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, out io.Writer) error
}

var commands = [...]command{
	{"list", "the containers that are placed: where, why, and their memory by node; those that are not", list},
	{"install", "copy the shim to where containerd finds it, replacing one that runs safely", install},
	{"ready", "keep the node's label in step with whether containerd knows the handler", ready},
}

// errUsage is for a command line that makes no sense.
var errUsage = errors.New("see -h")

const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout); {
	case err == nil:
	case err == errUsage:
		usage(os.Stderr)
		os.Exit(exitUsage)
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "numashim:", err)
		os.Exit(exitUsage)
	default:
		fmt.Fprintln(os.Stderr, "numashim:", err)
		os.Exit(exitFailed)
	}
}

// run does what the arguments say.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	for _, c := range commands {
		if c.name == args[0] {
			err := c.run(ctx, args[1:], out)
			if errors.Is(err, flag.ErrHelp) {
				return nil
			}
			return err
		}
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(out)
		return nil
	}
	return fmt.Errorf("unknown command %q: %w", args[0], errUsage)
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "numashim COMMAND [-h] [flags]")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-8s %s\n", c.name, c.summary)
	}
}

// parse reads a command's flags and refuses further arguments. For -h it
// prints them and returns flag.ErrHelp.
func parse(f *flag.FlagSet, args []string, out io.Writer) error {
	f.SetOutput(io.Discard) // what is wrong is in the error
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(out, "numashim %s [flags]\n", f.Name())
		f.SetOutput(out)
		f.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%s: %w: %w", f.Name(), err, errUsage)
	case f.NArg() > 0:
		return fmt.Errorf("%s: unexpected argument %q: %w", f.Name(), f.Arg(0), errUsage)
	}
	return nil
}
