// Package enginetest is what the tests of every engine need: a small root
// filesystem, a spec and a request for a container on it, the one waiter of
// each process, and what must not be left of any of them.
//
// Not its job: to make a container, or to say what an engine must do. Each
// engine's tests do. The product does not import it.
//
// The machine: root, a static busybox, cgroups of either version or both.
package enginetest
