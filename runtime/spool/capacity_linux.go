package spool

import (
	"os"
	"syscall"
)

// capacity returns the size of the file system that f is on, 0 when it has none.
func capacity(f *os.File) int64 {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0
	}
	return int64(st.Blocks) * int64(st.Frsize)
}
