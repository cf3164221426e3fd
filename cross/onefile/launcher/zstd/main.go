//go:build linux

// The front of the delivery in one file: see package onefile.
package main

import (
	"fmt"
	"os"

	"github.com/picket-ids/picket/cross/onefile"
)

func main() {
	fmt.Fprintln(os.Stderr, "picket:", onefile.Start(onefile.Zstd))
	os.Exit(2)
}
