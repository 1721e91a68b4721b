package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

// serve ADDRESS [ANSWER] prints "ready" when it listens on TCP, and tells each
// connection ANSWER, or what it says itself. It ends with a signal only.
func serve(args []string) (int, error) {
	if len(args) < 1 || len(args) > 2 {
		return 0, fmt.Errorf("want an address and an answer, have %q", args)
	}
	listener, err := net.Listen("tcp", args[0])
	if err != nil {
		return 0, err
	}
	fmt.Println("ready")
	for {
		conn, err := listener.Accept()
		if err != nil {
			return 0, err
		}
		go func() {
			defer conn.Close()
			if len(args) == 2 {
				fmt.Fprintln(conn, args[1])
				return
			}
			io.Copy(conn, conn)
		}()
	}
}

// dial ADDRESS prints what a TCP server says until it closes.
func dial(args []string) (int, error) {
	if len(args) != 1 {
		return 0, fmt.Errorf("want an address, have %q", args)
	}
	conn, err := net.Dial("tcp", args[0])
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_, err = io.Copy(os.Stdout, conn)
	return 0, err
}
