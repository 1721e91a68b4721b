package rig

import (
	"os/exec"
	"runtime"
)

// startLocked starts cmd from a thread that lives as long as the program.
// Pdeathsig is delivered when the parent *thread* ends (prctl(2),
// PR_SET_PDEATHSIG), and Go ends idle threads at will.
func startLocked(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			select {} // keeps the parent thread, for the life of the program
		}
	}()
	return <-started
}
