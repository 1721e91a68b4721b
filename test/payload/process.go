package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// exitWith CODE ends with that status.
func exitWith(args []string) (int, error) {
	return number(args, 0, 0)
}

// fork N [leave] starts N sleeping children that hold its output open. With
// "leave" it exits at once and leaves them; else it waits for SIGTERM.
func fork(args []string) (int, error) {
	n, err := number(args, 0, 1)
	if err != nil {
		return 0, err
	}
	for range n {
		child := exec.Command("/proc/self/exe", "wait")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Start(); err != nil {
			return 0, err
		}
	}
	fmt.Println("forked", n)
	if len(args) > 1 && args[1] == "leave" {
		return 0, nil
	}
	return waitForTerm(nil)
}

// waitForTerm [CODE] prints "ready" and sleeps until SIGTERM, then ends with
// CODE (0).
func waitForTerm(args []string) (int, error) {
	code, err := number(args, 0, 0)
	if err != nil {
		return 0, err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println("ready")
	<-term
	return code, nil
}

// alloc MIB [PACE] touches that much memory, at most PACE MiB of it in a
// second, prints "allocated" and waits for SIGTERM.
func alloc(args []string) (int, error) {
	mib, err := number(args, 0, 1)
	if err != nil {
		return 0, err
	}
	pace, err := number(args, 1, math.MaxInt32)
	if err != nil {
		return 0, err
	}
	memory := make([]byte, mib<<20)
	begin := time.Now()
	for i := range mib {
		for page := i << 20; page < (i+1)<<20; page += os.Getpagesize() {
			memory[page] = 1
		}
		time.Sleep(time.Duration(i+1)*time.Second/time.Duration(pace) - time.Since(begin))
	}
	fmt.Println("allocated", mib)
	code, err := waitForTerm(nil)
	return code + int(memory[0]) - 1, err // uses memory: it stays allocated until here
}

// number is the argument at index i, or what is taken without it.
func number(args []string, i, without int) (int, error) {
	if len(args) <= i {
		return without, nil
	}
	return strconv.Atoi(args[i])
}
