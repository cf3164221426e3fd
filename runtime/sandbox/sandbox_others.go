//go:build !linux

package sandbox

import (
	"fmt"
	"runtime"
)

// Drop does nothing without a user, and is an error with one.
func Drop(user string) error {
	if user != "" {
		return fmt.Errorf("drop privileges: become %s: not on %s, only on Linux", user, runtime.GOOS)
	}
	return nil
}

// Restrict does nothing and returns 0.
func Restrict(Paths) (abi int, err error) { return 0, nil }

// SystemReadable returns nothing.
func SystemReadable() []string { return nil }
