//go:build linux

// Launcher is the front of the delivery in one file: see package onefile.
package main

import (
	"fmt"
	"os"

	"github.com/picket-ids/picket/cross/onefile"
)

func main() {
	fmt.Fprintln(os.Stderr, "picket:", onefile.Start())
	os.Exit(2)
}
