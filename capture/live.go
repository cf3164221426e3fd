package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// ErrQuiet is returned by Next of a Live when no frame came for a tick.
var ErrQuiet = errors.New("no frame for a tick")

// LiveConfig says how to capture. The zero value is good.
type LiveConfig struct {
	Filter      string        // expression, see NewFilter; empty: all frames
	Exclude     []Peer        // conversations to leave out, see Live.Exclude
	Promiscuous bool          // also frames that are for other hosts
	Snaplen     int           // octets of a frame that are kept; 0: 262,144
	RingMiB     int           // of memory for each interface; 0: 8, at most 256
	Tick        time.Duration // how long Next waits for a frame; 0: 100 ms
	// Fanout shares the frames of an interface among all Lives with the same
	// number in one network namespace (two processes, too), so that both
	// directions of a flow, and all fragments of a datagram, reach the same one.
	// The interface numbered i takes the number Fanout+i. 0: no sharing.
	//
	// The kernel goes by the outermost addresses and ports. Of what is in VXLAN or
	// GTP-U the two directions have different outer ports, so they may reach
	// different Lives, which see half a connection each: where such tunnels matter,
	// do not share.
	Fanout uint16
}

const (
	defaultRingMiB = 8
	maxRingMiB     = 256
	defaultTick    = 100 * time.Millisecond
	minSnaplen     = 64
)

// Validate joins the mistakes that show without opening the interfaces.
func (c LiveConfig) Validate(ifaces []string) error { return c.complete(ifaces) }

// complete fills in the defaults and joins all the mistakes it finds.
func (c *LiveConfig) complete(ifaces []string) error {
	var errs []error
	if len(ifaces) == 0 {
		errs = append(errs, errors.New("no interface named"))
	}
	seen := map[string]bool{}
	for _, name := range ifaces {
		if seen[name] {
			errs = append(errs, fmt.Errorf("interface %s named twice", name))
		}
		seen[name] = true
	}
	if c.Snaplen == 0 {
		c.Snaplen = maxRecord
	}
	if c.Snaplen < minSnaplen || c.Snaplen > maxRecord {
		errs = append(errs, fmt.Errorf("snaplen %d: from %d to %d", c.Snaplen, minSnaplen, maxRecord))
	}
	if c.RingMiB == 0 {
		c.RingMiB = defaultRingMiB
	}
	if c.RingMiB < 1 || c.RingMiB > maxRingMiB {
		errs = append(errs, fmt.Errorf("ring of %d MiB: from 1 to %d", c.RingMiB, maxRingMiB))
	}
	if c.Tick == 0 {
		c.Tick = defaultTick
	}
	if c.Tick < time.Millisecond || c.Tick > time.Minute {
		errs = append(errs, fmt.Errorf("tick of %v: from 1ms to 1m", c.Tick))
	}
	return errors.Join(errs...)
}

// Peer names TCP connections: those between Local and Remote, or all with Remote
// when Local is not valid.
type Peer struct{ Local, Remote netip.AddrPort }

// InterfaceStats counts the frames of one interface since Listen.
type InterfaceStats struct {
	Name     string
	Link     LinkType // once it was there
	Up       bool
	Away     error  // why not, as of the last look; nil of one that is not up as Close was called
	Received uint64 // that passed the filter, dropped ones included
	Dropped  uint64 // by the kernel, because the ring was full
	Freezes  uint64 // how often the ring was full
	Returns  uint64 // how often the interface went away, or was not there at first, and came
}
