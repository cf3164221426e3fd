package onnx

/*
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
static void trim(void) { malloc_trim(0); }
#else
static void trim(void) {}
#endif
*/
import "C"

import (
	"bufio"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"unsafe"
)

// trimHeap gives free memory back to the system: Go's, some 4 MB after a model is parsed, and C's where the C
// library is glibc, which would keep the 17–20 MB that a session's making leaves.
func trimHeap() {
	debug.FreeOSMemory()
	C.trim()
}

// newFloats returns n zeros in C memory, where C code may keep a pointer to them, aligned like ONNX Runtime's own
// tensors. The caller frees them.
func newFloats(n int) ([]float32, error) {
	var p unsafe.Pointer
	if e := C.posix_memalign(&p, 64, C.size_t(n)*4); e != 0 {
		return nil, syscall.Errno(e)
	}
	s := unsafe.Slice((*float32)(p), n)
	clear(s)
	return s, nil
}

func freeFloats(s []float32) {
	if s != nil {
		C.free(unsafe.Pointer(&s[0]))
	}
}

// withoutSchemaErrors calls f with the lines "Schema error: …" taken out of what the process writes to
// standard error meanwhile; the other lines arrive when f has returned. If f kills the process they are lost.
func withoutSchemaErrors(f func()) {
	stderr, err := syscall.Dup(2)
	if err != nil {
		f()
		return
	}
	out := os.NewFile(uintptr(stderr), "stderr")
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.Close()
		drop := false // a schema error and the empty line that ends it
		for lines := bufio.NewScanner(r); lines.Scan(); {
			line := lines.Text()
			if drop = strings.HasPrefix(line, "Schema error") || drop && line == ""; !drop {
				out.WriteString(line + "\n")
			}
		}
	}()
	if syscall.Dup3(int(w.Fd()), 2, 0) == nil {
		f()
		syscall.Dup3(stderr, 2, 0)
	} else {
		f()
	}
	w.Close()
	<-done
}
