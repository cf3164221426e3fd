//go:build linux

// The front of the one file that packages carry: see package onefile.
package main

import "github.com/picket-ids/picket/cross/onefile"

func main() { onefile.Main(onefile.XZ) }
