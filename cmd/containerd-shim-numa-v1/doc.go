// Command containerd-shim-numa-v1 is a containerd shim, runtime type
// io.containerd.numa.v1.
//
// containerd runs it; see README.md. This package only joins the others:
// package shim is containerd's contract, package task the Task service,
// task/native the engine. It is also the program that libcontainer executes
// again, as "init", inside each new container (init.go).
package main
