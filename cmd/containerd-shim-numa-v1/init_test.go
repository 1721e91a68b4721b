package main

import (
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMainThreadIsNobodys takes as many threads as the shim may ever have, and
// finds that the main one is not among them: whoever moves a thread into
// another namespace and leaves it to be destroyed never gets the thread that
// cannot be. (The init function that sees to it is this program's as well.)
func TestMainThreadIsNobodys(t *testing.T) {
	const threads = 200
	var held, done sync.WaitGroup
	release := make(chan struct{})
	held.Add(threads)
	for range threads {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if unix.Gettid() == os.Getpid() {
				t.Error("a goroutine was given the main thread")
			}
			held.Done()
			<-release
		})
	}
	held.Wait()
	close(release)
	done.Wait()
}
