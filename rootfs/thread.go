package rootfs

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onOwnThread runs do on a thread that ends with it, and may therefore change
// what belongs to a thread: its working directory after unshare(CLONE_FS), its
// mount namespace. The main thread is not taken: it is what /proc/self shows,
// and the runtime cannot end it.
func onOwnThread(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onOwnThread(do) // not here: this thread is occupied
			return
		}
		done <- do()
	}()
	return <-done
}

// inDirectory runs do with the directory fd as working directory.
func (c *calls) inDirectory(fd int, do func() error) error {
	return onOwnThread(func() error {
		if err := c.do(func() error { return unix.Unshare(unix.CLONE_FS) }); err != nil {
			return err
		}
		if err := c.do(func() error { return unix.Fchdir(fd) }); err != nil {
			return err
		}
		return do()
	})
}
