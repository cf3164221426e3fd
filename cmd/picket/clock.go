package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/picket-ids/picket/runtime/detect"
)

// before this time no clock is right: the program did not exist.
var programDate = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// clock tells whether anything has set the system's clock since the board was switched on.
type clock struct {
	now          func() time.Time
	synchronised func() (yes, known bool)
	kept         bool        // the board has a clock that runs while it is off
	set          atomic.Bool // it was synchronised once: that may lapse, but the clock stays right
}

func newClock() *clock {
	return &clock{now: time.Now, synchronised: synchronised, kept: keepsTime("/sys/class/rtc", runtime.GOARCH)}
}

// word is for events: what is wrong with the times they tell.
func (c *clock) word() string {
	if c.set.Load() {
		return ""
	}
	yes, known := c.synchronised()
	switch {
	case yes:
		c.set.Store(true)
	case c.now().Before(programDate), known && !c.kept:
		return detect.Unsynchronised
	}
	return ""
}

// synchronised asks the kernel whether a time service has set its clock, or systemd's, where that question is forbidden
// (ProtectClock=).
func synchronised() (yes, known bool) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err == nil {
		return t.Status&unix.STA_UNSYNC == 0, true
	}
	const timesyncd = "/run/systemd/timesync"
	if _, err := os.Stat(timesyncd + "/synchronized"); err == nil {
		return true, true
	}
	_, err := os.Stat(timesyncd)
	return false, err == nil
}

// keepsTime tells whether one of the clocks in a directory knows a possible date. PCs have always had one, which
// the kernel may read without a driver.
func keepsTime(dir, arch string) bool {
	if arch == "amd64" || arch == "386" {
		return true
	}
	clocks, _ := filepath.Glob(filepath.Join(dir, "*", "since_epoch"))
	for _, path := range clocks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		s, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err == nil && s > programDate.Unix() {
			return true
		}
	}
	return false
}
