package capture

import (
	"bytes"
	"encoding/binary"
	"math"
)

// Bounds of the defragmenter. Together they make it 1.4 MiB, allocated with the
// first fragment.
const (
	// maxDatagrams is how many are remembered. The oldest makes room for the
	// next, whether it is whole or not: one that still lacks a fragment after
	// 256 others lost it, and its identifier may soon be another's (RFC 4963).
	maxDatagrams = 256
	// maxFragments of one datagram: 65,535 octets over an MTU of 576 are 119.
	maxFragments = 128
	// fragmentLog is the octets of fragments that are kept.
	fragmentLog = 1 << 20
	// fragmentTimeout in nanoseconds is that of Linux; RFC 8200 has 60 s, RFC
	// 791 15 s.
	fragmentTimeout = 30e9
	// maxWholes is how many datagrams one frame may complete: one, and one in
	// the tunnel that it carries.
	maxWholes = 2
)

// DefragStats counts the datagrams that came in fragments, by what became of
// them. Those counted nowhere but in Begun still lack fragments.
type DefragStats struct {
	Begun    uint64
	Whole    uint64 // reassembled
	Wrong    uint64 // an overlap, a wrong checksum, an impossible offset: never reassembled
	Cut      uint64 // the capture has only a part of a fragment
	TooMany  uint64 // in more than 128 fragments
	Evicted  uint64 // gave way to newer ones
	TimedOut uint64 // not whole after 30 s
}

// Defrag returns the counts so far.
func (d *Decoder) Defrag() DefragStats {
	if d.fragments == nil {
		return DefragStats{}
	}
	return d.fragments.stats
}

// fragmentKey is what the fragments of a datagram share (RFC 791, RFC 8200), and
// the tunnel they came by: private networks repeat addresses.
type fragmentKey struct {
	src, dst, outerDst Addr
	id, tunnelID       uint32
	tunnel             TunnelKind
	version            uint8
	proto              uint8 // IPv4 only
}

// tag is a hash, never 0, and the same in every run.
func (k *fragmentKey) tag() uint32 {
	le := binary.LittleEndian
	h := (le.Uint64(k.src[8:]) ^ uint64(k.id)<<32 ^ uint64(k.tunnelID)) * 0x9e3779b97f4a7c15
	h = (h>>32 ^ h ^ le.Uint64(k.dst[8:]) ^ uint64(k.proto)) * 0x9e3779b97f4a7c15
	return uint32(h>>32) | 1
}

type fragmentState uint8

const (
	incomplete fragmentState = iota
	whole
	hopeless // counted as what it is, never reassembled
)

// datagram is one in fragments. It holds no pointers.
type datagram struct {
	key   fragmentKey
	time  int64  // ns, of the fragment that came first
	start uint64 // of its octets in the log
	state fragmentState

	// Of the fragment at offset 0, once it is known.
	known            bool
	headless         bool  // without a whole transport header
	next             uint8 // what follows the IP or fragment header
	proto            uint8 // what follows the extension headers
	srcPort, dstPort uint16
	icmpType         uint8
	icmpCode         uint8
	icmpID           uint16

	total uint32 // octets, 0 until the last fragment came
	got   uint32 // octets
	wire  uint64 // octets of the frames they came in
	end   uint32 // of the fragment that reaches farthest
	count int
	parts [maxFragments]part
}

// part is where octets from ≤ i < to of a datagram lie in the log.
type part struct {
	from, to uint16
	at       uint32
}

const notKept = 1<<32 - 1 // part.at of octets that are not in the log

// defragmenter remembers the datagrams numbered first ≤ i < end, in the order in
// which they began, each at i modulo maxDatagrams. Their octets lie in a log
// written round and round: the oldest datagram is forgotten when its octets are
// about to be written over.
type defragmenter struct {
	first, end uint64
	tags       [maxDatagrams]uint32 // 0: forgotten
	datagrams  [maxDatagrams]datagram
	head       uint64 // of the log, never wrapped
	log        [fragmentLog]byte
	wholes     [maxWholes][maxDatagram]byte
	level      int // of wholes in use
	stats      DefragStats
}

// defragment takes a fragment whose own headers are decoded with outcome o; b is
// what follows the IP or fragment header, next the protocol of that, n its
// length on the wire.
//
// A fragment with exactly the range and octets of an earlier one is a duplicate,
// as networks and captures on two ports make them, and is ignored (RFC 8200,
// section 4.5, allows it); any other overlap is an attack (RFC 5722).
func (d *Decoder) defragment(next uint8, b []byte, n int, o Outcome, p *Packet) Outcome {
	if d.fragments == nil {
		d.fragments = new(defragmenter)
	}
	f := d.fragments
	k := fragmentKey{
		src: p.Src, dst: p.Dst, outerDst: p.OuterDst, id: p.FragmentID,
		tunnelID: p.TunnelID, tunnel: p.Tunnel, version: p.Version,
	}
	if p.Version == 4 {
		k.proto = next
	}
	f.expire(p.Time)
	g := f.find(&k, p.Time)
	dup := g != nil && !p.WrongFragment && f.duplicate(g, b, n, p)
	if g == nil || g.state == whole && !dup { // whole: the sender uses its identifier again
		g = f.begin(&k, p.Time)
	}
	switch {
	case p.FragmentOffset > 0 && g.known:
		p.Proto = g.proto
		p.SrcPort, p.DstPort = g.srcPort, g.dstPort
		p.ICMPType, p.ICMPCode, p.ICMPID = g.icmpType, g.icmpCode, g.icmpID
	case p.FragmentOffset > 0:
		o = OrphanFragment
	case !g.known:
		// No more octets than its own, as phones send them ahead, are left out:
		// models were trained on rows without them.
		if g.got > uint32(n) {
			p.PayloadLen += int(g.got)
			p.WireLen = int(min(uint64(p.WireLen)+g.wire, math.MaxInt32))
		}
		g.known, g.headless, g.next, g.proto = true, o == LaterFragment, next, p.Proto
		g.srcPort, g.dstPort = p.SrcPort, p.DstPort
		g.icmpType, g.icmpCode, g.icmpID = p.ICMPType, p.ICMPCode, p.ICMPID
	}
	if dup || !f.add(g, b, n, p) || f.level == maxWholes {
		return o
	}
	return d.whole(g, o, p)
}

// whole decodes the datagram g, which the fragment p completed.
func (d *Decoder) whole(g *datagram, o Outcome, p *Packet) Outcome {
	f := d.fragments
	b := f.wholes[f.level][:g.total:g.total]
	for _, s := range g.parts[:g.count] {
		copy(b[s.from:s.to], f.log[s.at:])
	}
	headless := g.headless
	q := Packet{
		Time: p.Time, WireLen: p.WireLen, VLAN: p.VLAN, Src: p.Src, Dst: p.Dst, Version: p.Version, TTL: p.TTL,
		Interface: p.Interface, SrcMAC: p.SrcMAC, DstMAC: p.DstMAC,
		Tunnel: p.Tunnel, TunnelID: p.TunnelID, OuterSrc: p.OuterSrc, OuterDst: p.OuterDst, Tunnels: p.Tunnels,
	}
	f.level++
	in := d.payload(g.next, b, len(b), &q) // g may be another's after this
	f.level--
	switch {
	case !in.HasPacket():
		return o
	case q.Tunnels > p.Tunnels:
		*p = q
		return in
	}
	p.Whole = q.Payload
	if headless {
		p.SrcPort, p.DstPort = q.SrcPort, q.DstPort
		p.Flags, p.Seq, p.Ack, p.Window = q.Flags, q.Seq, q.Ack, q.Window
		p.ICMPType, p.ICMPCode, p.ICMPID = q.ICMPType, q.ICMPCode, q.ICMPID
		p.Quoted, p.HasQuote = q.Quoted, q.HasQuote
	}
	return o
}

func (f *defragmenter) at(i uint64) *datagram { return &f.datagrams[i%maxDatagrams] }

// expired also holds for a clock that ran back.
func (g *datagram) expired(now int64) bool {
	age := now - g.time
	return age >= fragmentTimeout || age <= -fragmentTimeout
}

// expire forgets the oldest datagrams as long as their time is over.
func (f *defragmenter) expire(now int64) {
	for f.first < f.end && f.at(f.first).expired(now) {
		f.forget(f.first, &f.stats.TimedOut)
		f.first++
	}
}

// forget counts the datagram numbered i in count, if it was incomplete.
func (f *defragmenter) forget(i uint64, count *uint64) {
	if t := &f.tags[i%maxDatagrams]; *t != 0 {
		*t = 0
		f.giveUp(f.at(i), count)
	}
}

func (f *defragmenter) giveUp(g *datagram, count *uint64) {
	if g.state == incomplete {
		g.state = hopeless
		*count++
	}
}

// find returns nil for an unknown datagram. The newest come first: fragments
// mostly follow one another.
func (f *defragmenter) find(k *fragmentKey, now int64) *datagram {
	tag := k.tag()
	for i := f.end; i > f.first; i-- {
		if f.tags[(i-1)%maxDatagrams] != tag {
			continue
		}
		g := f.at(i - 1)
		switch {
		case g.key != *k:
		case g.expired(now):
			f.forget(i-1, &f.stats.TimedOut)
		default:
			return g
		}
	}
	return nil
}

// begin returns a new datagram, which find prefers to an older one of its key.
func (f *defragmenter) begin(k *fragmentKey, now int64) *datagram {
	if f.end-f.first == maxDatagrams {
		f.evict()
	}
	i := f.end
	f.end++
	f.stats.Begun++
	f.tags[i%maxDatagrams] = k.tag()
	g := f.at(i)
	parts := &g.parts
	*g = datagram{key: *k, time: now, start: f.head, parts: *parts}
	return g
}

func (f *defragmenter) evict() {
	f.forget(f.first, &f.stats.Evicted)
	f.first++
}

// duplicate reports whether g has the very fragment p.
func (f *defragmenter) duplicate(g *datagram, b []byte, n int, p *Packet) bool {
	from, to := p.FragmentOffset, p.FragmentOffset+uint16(n)
	for _, s := range g.parts[:g.count] {
		if s.from == from && s.to == to && (uint32(to) == g.total) == !p.MoreFragments {
			return s.at == notKept || bytes.Equal(b, f.log[s.at:][:len(b)])
		}
	}
	return false
}

// add takes a fragment that is no duplicate, marks it wrong if it contradicts
// those before it, and reports whether it made g whole.
func (f *defragmenter) add(g *datagram, b []byte, n int, p *Packet) bool {
	if p.WrongFragment {
		f.giveUp(g, &f.stats.Wrong)
		return false
	}
	from := uint32(p.FragmentOffset)
	to := from + uint32(n)
	if g.total > 0 && (to > g.total || !p.MoreFragments && to != g.total) || !p.MoreFragments && to < g.end {
		p.WrongFragment = true
	}
	for _, s := range g.parts[:g.count] {
		if from < uint32(s.to) && uint32(s.from) < to {
			p.WrongFragment = true
		}
	}
	switch {
	case p.WrongFragment:
		f.giveUp(g, &f.stats.Wrong)
	case g.count == maxFragments:
		f.giveUp(g, &f.stats.TooMany)
	case len(b) < n:
		f.giveUp(g, &f.stats.Cut)
	}
	if g.count == maxFragments {
		return false
	}
	at := uint32(notKept)
	if g.state == incomplete {
		at = f.keep(b)
	}
	g.parts[g.count] = part{uint16(from), uint16(to), at}
	g.count++
	g.got += uint32(n)
	g.wire += uint64(p.WireLen)
	g.end = max(g.end, to)
	if !p.MoreFragments && !p.WrongFragment {
		g.total = to
	}
	if g.state != incomplete || g.got != g.total { // keep may have evicted g
		return false
	}
	g.state = whole
	f.stats.Whole++
	return true
}

// keep appends b to the log in one piece.
func (f *defragmenter) keep(b []byte) uint32 {
	n := uint64(len(b))
	if at := f.head % fragmentLog; at+n > fragmentLog {
		f.head += fragmentLog - at
	}
	for f.first < f.end && f.head+n-f.at(f.first).start > fragmentLog {
		f.evict()
	}
	at := uint32(f.head % fragmentLog)
	copy(f.log[at:], b)
	f.head += n
	return at
}
