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

// As is an error.
func As(uid, gid int, fn func() error) error {
	return fmt.Errorf("become user %d: not on %s, only on Linux", uid, runtime.GOOS)
}

// Restrict does nothing and returns 0.
func Restrict(Paths) (abi int, err error) { return 0, nil }

// SystemReadable returns nothing.
func SystemReadable() []string { return nil }
