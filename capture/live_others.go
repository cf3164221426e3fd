//go:build !linux

package capture

import (
	"errors"
	"runtime"
)

// Live captures from network interfaces, on Linux.
type Live struct{}

var errNoLive = errors.New("live capture: not on " + runtime.GOOS + ", only on Linux; capture with tcpdump -w and scan the file")

// Listen returns an error.
func Listen(ifaces []string, cfg LiveConfig) (*Live, error) {
	return nil, errors.Join(cfg.complete(ifaces), errNoLive)
}

// Next returns an error.
func (*Live) Next(*Frame) error { return errNoLive }

// Close does nothing.
func (*Live) Close() error { return nil }

// Stats returns nothing.
func (*Live) Stats() []InterfaceStats { return nil }

// Exclude returns an error.
func (*Live) Exclude(...Peer) error { return errNoLive }
