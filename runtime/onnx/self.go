package onnx

import (
	"bytes"
	"os"
)

// Self returns what starts this very program once more, also when an update has replaced its file: an executable, and
// the arguments that come before the program's own. There are some where the program was started by the dynamic loader
// that it was packed with (cross/README.md): then the executable is that loader, which leaves its options and the
// program's path in /proc/self/cmdline and takes them out of os.Args.
func Self() (executable string, args []string) {
	line, _ := os.ReadFile("/proc/self/cmdline")
	return "/proc/self/exe", before(line, len(os.Args))
}

// before is what stands in a command line between its first argument and the last of n, which the program saw; the
// program's first is its name, for which its path stands here.
func before(line []byte, n int) []string {
	all := bytes.Split(bytes.TrimSuffix(line, []byte{0}), []byte{0})
	var args []string
	for i := 1; i <= len(all)-n; i++ {
		args = append(args, string(all[i]))
	}
	return args
}
