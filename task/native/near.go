package native

import (
	"runtime"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/numa/cpuset"
)

// near calls do on a thread that keeps to the CPUs, or on the caller's if there
// are none. What do forks begins there, and so are its first pages. If the shim
// may not use these CPUs do runs where it may: it is a matter of speed only.
//
// Nothing of it gets into a container: libcontainer resets the affinity of a
// container's processes when they are in its cgroup. Nor does it stay in the
// shim: the thread is never unlocked, so that it ends with the goroutine, and
// the Go runtime does not clone its other threads from a locked one. Setting
// the old affinity again would not do: it is the one that the kernel had cut
// down to the CPUs of that moment.
func near(cpus cpuset.Set, do func() error) error {
	if cpus.IsEmpty() {
		return do()
	}
	mask := unix.NewCPUSet(cpus.Max() + 1)
	for cpu := range cpus.All() {
		mask.Set(cpu)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		_ = unix.SchedSetaffinityDynamic(0, mask)
		done <- do()
	}()
	return <-done
}
