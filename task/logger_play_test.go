package task

import (
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// playLogger is a logging program: its arguments are a way to behave and a
// file to write to.
func playLogger(args []string) {
	stdout, stderr, ready := os.NewFile(3, "stdout"), os.NewFile(4, "stderr"), os.NewFile(5, "ready")
	switch args[0] {
	case "v2", "v2-deaf", "v2-late":
		if args[0] == "v2-late" {
			time.Sleep(100 * time.Millisecond)
		}
		_, _ = ready.Write([]byte{1})
	case "crash":
		os.Exit(1)
	case "never":
		time.Sleep(time.Hour)
	}
	ready.Close()
	if args[0] == "v2-deaf" {
		signal.Ignore(syscall.SIGTERM)
		time.Sleep(time.Hour)
	}
	out, _ := io.ReadAll(stdout)
	err, _ := io.ReadAll(stderr)
	environment := strings.Join(os.Environ(), " ")
	text := "out=" + string(out) + "\nerr=" + string(err) + "\nenv=" + environment + "\nargs=" + strings.Join(os.Args[1:], "|")
	if os.WriteFile(args[1], []byte(text), 0o600) != nil {
		os.Exit(2)
	}
}
