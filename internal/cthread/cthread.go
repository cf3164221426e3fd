// Package cthread starts a thread that Go knows nothing of, as ONNX Runtime does.
package cthread

// #include <pthread.h>
// #include <unistd.h>
//
// static void *wait_for_ever(void *arg) {
//     for (;;) pause();
// }
//
// static int start(void) {
//     pthread_t t;
//     return pthread_create(&t, NULL, wait_for_ever, NULL);
// }
import "C"

import "syscall"

// Start starts a thread that does nothing until the process ends.
func Start() error {
	if e := C.start(); e != 0 {
		return syscall.Errno(e)
	}
	return nil
}
