package main

import (
	"encoding/json"
	"os"
	"runtime"
	"strconv"

	"github.com/opencontainers/runc/libcontainer"
	// Its constructor, in C, enters the namespaces before the Go runtime
	// starts threads.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"

	"containerd-shim-numa-v1/rootfs"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		if err := rootfs.AttachInherited(); err != nil {
			failInit(err)
		}
		libcontainer.Init()
	}
	// libcontainer has goroutines whose threads it moves into a container's
	// mount namespace and leaves to be destroyed. The main thread cannot be
	// destroyed: it would stay there, and hold the container's mounts, until
	// the shim ends. Locked to the main goroutine it is never chosen.
	runtime.LockOSThread()
}

// failInit tells the shim, over the pipe on which it expects init's log, why
// there will be no init. Of that log libcontainer makes what is fatal part of
// its error.
func failInit(err error) {
	line, _ := json.Marshal(struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
	}{"fatal", err.Error()})
	if fd, convErr := strconv.Atoi(os.Getenv("_LIBCONTAINER_LOGPIPE")); convErr == nil {
		_, _ = os.NewFile(uintptr(fd), "log").Write(append(line, '\n'))
	}
	os.Exit(1)
}
