package rig

import "time"

// pollInterval is short beside everything a container runtime does.
const pollInterval = 5 * time.Millisecond

// Eventually polls ok until it holds or the bound passes, and reports which.
func Eventually(bound time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(bound); ; time.Sleep(pollInterval) {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}
