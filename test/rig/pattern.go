package rig

import "fmt"

// patternPrime makes each byte of the payload's output tell its position.
const patternPrime = 251

// CheckPattern says how output differs from the n bytes that the payload's
// write command wrote, nil if it does not.
func CheckPattern(output []byte, n int) error {
	for i, b := range output {
		if b != byte(i%patternPrime) {
			return fmt.Errorf("byte %d of %d is %#x, want %#x", i, len(output), b, byte(i%patternPrime))
		}
	}
	if len(output) != n {
		return fmt.Errorf("%d bytes arrived of %d", len(output), n)
	}
	return nil
}
