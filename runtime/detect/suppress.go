package detect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
)

const (
	// maxSuppressions bounds what each anomalous row is compared with: under a
	// microsecond for all.
	maxSuppressions = 256
	maxReason       = 256 // octets
)

// A Suppression says which anomalous rows are expected, and until when: they become
// part of no incident. A row must fit all that is set; what is zero fits any row,
// but one at least of Source, Destination, Ports, Protocol and Model must be set.
type Suppression struct {
	Reason      string       // for people
	Until       time.Time    // from then on, on the packet clock, it does not act
	Source      netip.Prefix // of a connection's initiator, of a packet's sender
	Destination netip.Prefix
	Ports       []uint16 // of the destination; one of them must fit
	// Protocol is as network.transport of an event: tcp, udp, sctp, ipv6-icmp,
	// ip-<number>, or icmp, which here is that of IPv6 too.
	Protocol string
	Model    string // the name of one: what others find in the row still counts
}

// Validate returns every mistake in s, joined.
func (s *Suppression) Validate() error {
	var errs []error
	mistake := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	switch {
	case strings.TrimSpace(s.Reason) == "":
		mistake("suppression without a reason: say why this traffic is expected")
	case len(s.Reason) > maxReason:
		mistake("reason of %d octets: at most %d", len(s.Reason), maxReason)
	case !utf8.ValidString(s.Reason) || strings.ContainsFunc(s.Reason, unicode.IsControl):
		mistake("reason must be one line of UTF-8 text")
	}
	if s.Until.IsZero() {
		mistake("suppression without an end: say until when this traffic is expected")
	}
	if !s.Source.IsValid() && !s.Destination.IsValid() && len(s.Ports) == 0 && s.Protocol == "" && s.Model == "" {
		mistake("suppression of everything: give at least one of source, destination, port, protocol and model")
	}
	if err := checkPrefix(s.Source); err != nil {
		mistake("source %v: %w", s.Source, err)
	}
	if err := checkPrefix(s.Destination); err != nil {
		mistake("destination %v: %w", s.Destination, err)
	}
	if slices.Contains(s.Ports, 0) {
		mistake("port 0: ports are from 1 to 65535")
	}
	if protocols, err := protocolNumbers(s.Protocol); err != nil {
		errs = append(errs, err)
	} else if len(s.Ports) > 0 && len(protocols) > 0 && !hasPorts(protocols[0]) {
		mistake("protocol %s has no ports: leave out port, or give tcp, udp or sctp", s.Protocol)
	}
	return errors.Join(errs...)
}

// checkPrefix returns what is wrong with a network. The zero one is right.
func checkPrefix(p netip.Prefix) error {
	mapped := netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff})
	switch {
	case !p.IsValid():
		return nil
	case p.Bits() == 0:
		return errors.New("that is every address: leave it out")
	case p.Masked() != p:
		return fmt.Errorf("bits are set beyond the first %d: write %v, or %v alone", p.Bits(), p.Masked(), p.Addr())
	case p.Addr().Is6() && p.Bits() < 96 && p.Contains(mapped):
		return errors.New("that holds all of IPv4 too: give a smaller network")
	}
	return nil
}

// protocolNumbers returns the IP protocols of that name, none for the empty name.
func protocolNumbers(name string) ([]uint8, error) {
	switch name {
	case "":
		return nil, nil
	case "icmp":
		return []uint8{capture.ProtoICMP, capture.ProtoICMPv6}, nil
	}
	for _, p := range []uint8{capture.ProtoTCP, capture.ProtoUDP, capture.ProtoSCTP, capture.ProtoICMPv6} {
		if transport(p) == name {
			return []uint8{p}, nil
		}
	}
	if digits, ok := strings.CutPrefix(name, "ip-"); ok {
		if n, err := strconv.ParseUint(digits, 10, 8); err == nil {
			return []uint8{uint8(n)}, nil
		}
	}
	return nil, fmt.Errorf("protocol %.64q: want tcp, udp, sctp, icmp, ipv6-icmp or ip-<number>, as in network.transport of events", name)
}

func hasPorts(proto uint8) bool {
	return proto == capture.ProtoTCP || proto == capture.ProtoUDP || proto == capture.ProtoSCTP
}

// Expired reports whether s no longer acts at a time.
func (s *Suppression) Expired(now time.Time) bool { return !now.Before(s.Until) }

// suppressions are those of a detector, made ready to match, and what they did.
type suppressions struct {
	mutes []mute
	rows  []uint64 // that each suppressed
}

// mute is a Suppression made ready.
type mute struct {
	until          int64 // ns
	source, target prefix
	model          int // -1: any
	protocols      []uint8
	ports          []uint16 // sorted
}

// prefix is a netip.Prefix as value and mask of both halves of a capture.Addr. The
// zero one contains every address.
type prefix struct{ hi, lo, hiMask, loMask uint64 }

func newPrefix(p netip.Prefix) prefix {
	if !p.IsValid() {
		return prefix{}
	}
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	a := capture.AddrFrom(p.Addr())
	n := prefix{
		hiMask: ^(math.MaxUint64 >> min(bits, 64)),
		loMask: ^(math.MaxUint64 >> max(bits-64, 0)),
	}
	n.hi, n.lo = binary.BigEndian.Uint64(a[:8])&n.hiMask, binary.BigEndian.Uint64(a[8:])&n.loMask
	return n
}

func (n *prefix) contains(a *capture.Addr) bool {
	return binary.BigEndian.Uint64(a[:8])&n.hiMask == n.hi && binary.BigEndian.Uint64(a[8:])&n.loMask == n.lo
}

// newSuppressions makes a list ready for rows that the models score. It refuses one
// that is not valid or names another model: it would never act.
func newSuppressions(list []Suppression, models []Model) (*suppressions, error) {
	if len(list) > maxSuppressions {
		return nil, fmt.Errorf("%d suppressions: at most %d", len(list), maxSuppressions)
	}
	t := &suppressions{rows: make([]uint64, len(list))}
	var errs []error
	for i := range list {
		s := &list[i]
		err := s.Validate()
		m := mute{until: nanoseconds(s.Until), source: newPrefix(s.Source), target: newPrefix(s.Destination),
			model: -1, ports: slices.Clone(s.Ports)}
		slices.Sort(m.ports)
		if s.Model != "" {
			m.model = slices.IndexFunc(models, func(m Model) bool { return m.Name == s.Model })
			if m.model < 0 {
				err = errors.Join(err, fmt.Errorf("model %.64q is not among those that run: %s", s.Model, modelNames(models)))
			}
		}
		m.protocols, _ = protocolNumbers(s.Protocol) // Validate told
		if err != nil {
			errs = append(errs, fmt.Errorf("suppression %d (%q): %w", i+1, s.Reason, err))
		}
		t.mutes = append(t.mutes, m)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return t, nil
}

func modelNames(models []Model) string {
	var names []string
	for _, m := range models {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ")
}

// nanoseconds returns t on the packet clock, which a date such as 9999-12-31 is
// beyond.
func nanoseconds(t time.Time) int64 {
	switch s := t.Unix(); {
	case s < 0:
		return 0
	case s >= never/second:
		return never
	}
	return t.UnixNano()
}

// match returns the index of the first suppression of a row that a model (its index)
// finds anomalous, -1 when there is none.
func (t *suppressions) match(r *features.Row, model int) int {
	if t == nil {
		return -1
	}
	for i := range t.mutes {
		m := &t.mutes[i]
		if r.Time < m.until && m.source.contains(&r.Src) && m.target.contains(&r.Dst) &&
			(m.model < 0 || m.model == model) &&
			(m.protocols == nil || slices.Contains(m.protocols, r.Proto)) &&
			(m.ports == nil || contains(m.ports, r.DstPort)) {
			return i
		}
	}
	return -1
}

func contains(sorted []uint16, port uint16) bool {
	_, found := slices.BinarySearch(sorted, port)
	return found
}

// count counts a row that suppression i kept out of all incidents.
func (t *suppressions) count(i int) { t.rows[i]++ }

// counts returns how many rows each suppression kept out.
func (t *suppressions) counts() []uint64 {
	if t == nil {
		return nil
	}
	return slices.Clone(t.rows)
}
