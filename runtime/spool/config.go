package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/pflag"
)

const (
	defaultMaxBytes = 64 << 20
	minMaxBytes     = 256 << 10
	maxSegmentBytes = 4 << 20
)

// Sync says when what was appended is made to survive a power cut. It is a
// pflag.Value.
type Sync uint8

const (
	SyncAlways      Sync = iota // before Append returns
	SyncEverySecond             // at most once a second, so within one
)

func (s Sync) String() string {
	if s == SyncEverySecond {
		return "1s"
	}
	return "always"
}

// Set implements pflag.Value.
func (s *Sync) Set(text string) error {
	switch text {
	case "always":
		*s = SyncAlways
	case "1s":
		*s = SyncEverySecond
	default:
		return fmt.Errorf("sync policy %q: want always or 1s", text)
	}
	return nil
}

// Type implements pflag.Value.
func (s *Sync) Type() string { return "always|1s" }

// Config is how a queue is kept. A zero field means its default.
type Config struct {
	Sync Sync // default SyncAlways

	// MaxBytes is the most that the files of the queue take together; a sixteenth
	// of it, at most 4 MiB, is dropped at a time. At least 256 KiB; default 64 MiB.
	// Open lowers it to half of what the file system has, but not below 256 KiB.
	MaxBytes int64

	Logger *slog.Logger // a line when writing fails and works again, and per loss; nil: silent
}

// AddFlags adds flags for Sync and MaxBytes.
func (c *Config) AddFlags(fs *pflag.FlagSet) {
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	fs.Var(&c.Sync, "sync", "make queued events survive a power cut: always before they are sent, 1s for at most one write to the disk a second")
	fs.Int64Var(&c.MaxBytes, "queue-max-bytes", c.MaxBytes, "most that the queue takes on the disk; beyond it, and on a full file system, the oldest events are dropped and counted (0: 64 MiB; at most half of the file system)")
}

// Validate returns every mistake in c, joined.
func (c *Config) Validate() error {
	var errs []error
	if c.Sync > SyncEverySecond {
		errs = append(errs, fmt.Errorf("sync policy %d: want SyncAlways or SyncEverySecond", c.Sync))
	}
	if c.MaxBytes != 0 && c.MaxBytes < minMaxBytes {
		errs = append(errs, fmt.Errorf("queue of %d bytes: at least %d", c.MaxBytes, minMaxBytes))
	}
	return errors.Join(errs...)
}

// timing is what tests change.
type timing struct {
	now      func() time.Time
	interval time.Duration // of SyncEverySecond, and from an Ack to its record
	retry    time.Duration // between attempts to start a new file
}

var defaultTiming = timing{now: time.Now, interval: time.Second, retry: time.Second}
