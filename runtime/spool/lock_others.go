//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package spool

import (
	"errors"
	"os"
)

func private(string, *os.File) error { return nil }

func lock(*os.File) error { return errors.ErrUnsupported }

func unlock(*os.File) {}
