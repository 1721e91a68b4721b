// Command payload is the program that runs inside the rig's containers where
// busybox is not exact enough: it does one thing, then ends in a known way.
// On the host it serves as a binary:// logger.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// commands maps a name to what it does with its arguments. A command returns
// the exit status.
var commands = map[string]func(args []string) (int, error){
	"alloc":   alloc,
	"cat":     echoStdin,
	"dial":    dial,
	"exit":    exitWith,
	"fds":     listFDs,
	"fork":    fork,
	"ids":     printIDs,
	"logger":  runLogger,
	"serve":   serve,
	"stats":   statfs,
	"tree":    printTree,
	"wait":    waitForTerm,
	"winsize": printWindowSizes,
	"write":   writePattern,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		var names []string
		for name := range commands {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintln(os.Stderr, "usage: payload", strings.Join(names, "|"), "[argument...]")
		os.Exit(2)
	}
	code, err := commands[os.Args[1]](os.Args[2:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "payload %s: %v\n", os.Args[1], err)
		code = 1
	}
	os.Exit(code)
}
