//go:build linux

// The front of the one file that packages carry: see package onefile.
package main

import (
	"fmt"
	"os"

	"github.com/picket-ids/picket/cross/onefile"
)

func main() {
	fmt.Fprintln(os.Stderr, "picket:", onefile.Start(onefile.XZ))
	os.Exit(2)
}
