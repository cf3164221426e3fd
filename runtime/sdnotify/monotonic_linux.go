package sdnotify

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// monotonic tells systemd which of its reloads this is: it takes no earlier answer.
func monotonic() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // every Linux has it
	}
	return fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000)
}
