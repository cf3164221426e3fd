//go:build linux

// The front of the delivery in one file: see package onefile.
package main

import "github.com/picket-ids/picket/cross/onefile"

func main() { onefile.Main(onefile.Zstd) }
