package capture

import (
	"encoding/binary"
	"math/bits"
)

// Bounds of Mirrors. Together they make 0.2 MiB, allocated with the first frame.
const (
	maxMirrors   = 64   // interfaces of a source that are told apart
	maxSightings = 2048 // packets at a time that may still get a twin: 200,000 a second
	maxTCPFlows  = 4096

	// twinWindow in nanoseconds is how long after a packet its copy comes at the
	// latest. Copies of a switch come within microseconds, those behind a router within
	// a millisecond; retransmissions take 200 ms, or have another IP identifier.
	twinWindow = 5e6
	// seenBytes of a packet behind its link header tell it from others.
	seenBytes = 96

	// sightingsPerSecond and tcpPerSecond bound the packets that are watched in a second
	// as long as no interface duplicates: so many are enough for a verdict.
	sightingsPerSecond = 64
	tcpPerSecond       = 1024

	// An interface is judged by blocks of packets, of which each pair of addresses may
	// bring a fourth: no verdict rests on less than four of them. The first
	// block of twins proves that it duplicates; larger ones must show that it goes on.
	proofBlock, checkBlock = 16, 64
	// minFlows that acknowledge what was never seen show that an interface is one-way.
	minFlows = 4
	// maxAdvance bounds how far an acknowledgement moves: floods have random numbers, of
	// which one of 256 comes below it.
	maxAdvance = 16 << 20
)

// Mirror is what is known of how an interface shows its traffic.
type Mirror struct {
	Source    int // number among the sources that a Decoder read, from 0
	Interface int
	// Duplicating says that most packets come twice here: alike, or with a TTL one
	// lower behind a router. Only while it does are second copies left out.
	Duplicating bool
	Copies      uint64 // packets left out
	Twins       uint64 // packets of those watched that came exactly twice
	Singles     uint64 // and once
	// OneWay says that one direction of most TCP connections is not seen.
	OneWay       bool
	OneWayFlows  uint64 // TCP connections that acknowledge data which was never seen
	WholeFlows   uint64 // TCP connections that acknowledge data which was seen
	one, whole   int    // of the latest of these
	count        int    // packets of the block
	alike, lower int    // twins among them, by their TTL
	takes        uint8  // twins that are copies, by their TTL
	byPair       [64]uint8
}

// Bits of Mirror.takes.
const (
	takesAlike = 1 << iota
	takesLower
)

// Mirrors decides for each interface whether it shows packets twice and whether it shows
// one direction only. The packets before a verdict are taken as they come: nothing is
// held back and nothing is taken back. The zero value is ready.
type Mirrors struct {
	*mirrors
	sources int // begun
}

type mirrors struct {
	list  [maxMirrors]Mirror
	n     int // of list
	last  int // index of the interface of the packet before
	flows [maxTCPFlows]tcpFlow

	from          int64 // ns, of the second in which
	left, tcpLeft int   // are still to watch, see sightingsPerSecond
	duplicating   bool  // one of the source's interfaces is

	// The sightings numbered first ≤ i < end, in the order in which they began, each
	// at i modulo maxSightings; slots find them by their print.
	first, end uint64
	sightings  [maxSightings]sighting
	slots      [2 * maxSightings]uint32
}

// sighting is a packet that came within the last twinWindow or two, however often.
type sighting struct {
	print  uint64
	began  int64 // ns
	opened int64 // ns, when it came last and was no copy
	count  uint8 // how often it came, at most many
	open   uint8 // how often without its copy
	ttl    uint8
	takes  uint8 // of the second, see Mirror.takes
	proves bool  // it is an IP packet for one host
	pair   uint8 // hash of the addresses
	on     uint8 // index of the interface on which it came first, and second
	again  uint8
}

// many is more often than a copy comes.
const many = 3

// Stats returns what is known of each interface, at most 64. Those of sources that were
// read to their end are among them when there was a verdict.
func (m *Mirrors) Stats() []Mirror {
	if m.mirrors == nil {
		return nil
	}
	return append([]Mirror(nil), m.list[:m.n]...)
}

// begin takes another source.
func (m *Mirrors) begin() {
	m.sources++
	if m.mirrors == nil {
		return
	}
	told := 0
	for i := range m.list[:m.n] {
		if l := &m.list[i]; l.OneWay || l.Copies > 0 {
			m.list[told] = *l
			m.list[told].takes = 0 // it is over
			told++
		}
	}
	m.n, m.last = min(told, maxMirrors-1), 0
	m.first = m.end
	m.duplicating = false
	clear(m.flows[:])
}

// on returns the index of an interface in the list. Beyond the bound it is the last.
func (m *Mirrors) on(iface int) int {
	source := max(m.sources-1, 0)
	is := func(i int) bool { return m.list[i].Interface == iface && m.list[i].Source == source }
	if m.last < m.n && is(m.last) {
		return m.last
	}
	for i := range m.n {
		if is(i) {
			m.last = i
			return i
		}
	}
	if m.n < maxMirrors {
		m.list[m.n] = Mirror{Source: source, Interface: iface}
		m.n++
	}
	m.last = m.n - 1
	return m.last
}

// see takes a decoded frame, and reports whether it is the second copy of a packet on an
// interface that is proven to duplicate.
func (m *Mirrors) see(f *Frame, p *Packet, o Outcome) bool {
	if o == UnsupportedLink {
		return false
	}
	if m.mirrors == nil {
		m.mirrors = new(mirrors)
	}
	on := m.on(f.Interface)
	if uint64(f.Time-m.from) >= uint64(second) { // or the clock was set back
		if m.tcpLeft == 0 {
			clear(m.flows[:]) // much was not seen of them
		}
		m.from, m.left, m.tcpLeft = f.Time, sightingsPerSecond, tcpPerSecond
	}
	if (m.left > 0 || m.first < m.end || m.duplicating) && m.seeTwin(f, p, o.HasPacket(), uint8(on)) {
		m.list[on].Copies++
		return true
	}
	if o == Decoded && p.Proto == ProtoTCP && !p.Fragment && m.tcpLeft > 0 {
		m.tcpLeft--
		m.seeTCP(p, &m.list[on])
	}
	return false
}

// seeTwin remembers a packet until its copy comes. The first copy is taken, and so is each
// further packet that is alike, until its own copy comes: a flood of the same packet
// keeps its number, whether each came once or twice.
func (m *mirrors) seeTwin(f *Frame, p *Packet, ip bool, on uint8) bool {
	for m.first < m.end {
		s := &m.sightings[m.first%maxSightings]
		age := f.Time - s.began
		if age <= 2*twinWindow && age >= -2*twinWindow && m.end-m.first < maxSightings {
			break
		}
		m.first++
		if age <= 2*twinWindow {
			continue // the clock was set back, or too many came
		}
		m.decide(s)
		if m.duplicating && s.count == many && s.open > 0 && f.Time-s.opened <= twinWindow { // a flood goes on
			again := *s
			again.began = f.Time
			m.push(&again)
		}
	}
	print, ttl := fingerprint(f)
	s := m.find(print)
	if s == nil {
		if m.left <= 0 && !m.duplicating {
			return false // those before it still wait for their copies
		}
		m.left--
		s = &sighting{print: print, began: f.Time, opened: f.Time, count: 1, open: 1, ttl: ttl, on: on}
		if ip && p.DstMAC[0]&1 == 0 && !p.Dst.group() {
			s.proves, s.pair = true, pairOf(p)
		}
		m.push(s)
		return false
	}
	late := f.Time - s.opened
	if s.count < many {
		s.count++
		s.again = on
	}
	if late > twinWindow {
		s.count = many
	}
	takes := uint8(takesAlike)
	switch ttl {
	case s.ttl:
	case s.ttl - 1:
		takes = takesLower
	default: // a traceroute, or a path of three hops
		s.count, s.ttl, s.open, s.opened = many, ttl, 1, f.Time
		return false
	}
	if s.count == 2 {
		s.takes = takes
	}
	switch {
	case m.list[on].takes&takes != 0 && s.open > 0 && late <= twinWindow && late >= -twinWindow:
		s.open--
		return true
	case takes == takesAlike && s.open < 255:
		s.open, s.opened = s.open+1, f.Time
	}
	return false
}

// push adds a sighting, which takes the slot of the older one of two.
func (m *mirrors) push(s *sighting) {
	slot := s.print % uint64(len(m.slots))
	if m.age(slot) < m.age(slot^1) {
		slot ^= 1
	}
	m.slots[slot] = uint32(m.end)
	m.sightings[m.end%maxSightings] = *s
	m.end++
}

// age is one more than the number of sightings that are younger than the one of a slot.
func (m *mirrors) age(slot uint64) uint32 { return uint32(m.end) - m.slots[slot] }

// find returns nil for a packet that did not come lately.
func (m *mirrors) find(print uint64) *sighting {
	slot := print % uint64(len(m.slots))
	for _, age := range [2]uint64{uint64(m.age(slot)), uint64(m.age(slot ^ 1))} {
		if age > 0 && age <= m.end-m.first {
			if s := &m.sightings[(m.end-age)%maxSightings]; s.print == print {
				return s
			}
		}
	}
	return nil
}

// decide takes a sighting whose time is over as evidence. What came more than twice is
// a flood, duplicate acknowledgements or the like, and is none; nor is a packet for many
// hosts, which access points and bridges repeat.
func (m *mirrors) decide(s *sighting) {
	if !s.proves || s.count == many {
		return
	}
	i := &m.list[s.on]
	if s.count == 2 {
		i = &m.list[s.again]
		i.Twins++
	} else {
		i.Singles++
	}
	block := proofBlock
	if i.Duplicating {
		block = checkBlock
	}
	if int(i.byPair[s.pair]) == block/4 {
		return
	}
	i.byPair[s.pair]++
	i.count++
	switch {
	case s.count == 1:
	case s.takes == takesLower:
		i.lower++
	default:
		i.alike++
	}
	if i.count < block {
		return
	}
	twins := i.alike + i.lower
	i.Duplicating = 4*twins >= 3*block || i.Duplicating && 2*twins >= block
	i.takes = 0
	if i.Duplicating && 4*i.alike >= block {
		i.takes |= takesAlike
	}
	if i.Duplicating && 4*i.lower >= block {
		i.takes |= takesLower
	}
	i.count, i.alike, i.lower, i.byPair = 0, 0, 0, [64]uint8{}
	m.duplicating = false
	for k := range m.list[:m.n] {
		m.duplicating = m.duplicating || m.list[k].takes != 0
	}
}

// mix spreads 16 bytes.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xe7037ed1a0b428db)
	return hi ^ lo
}

func mixAddr(a *Addr, port uint64) uint64 {
	le := binary.LittleEndian
	return mix(le.Uint64(a[:])^port, le.Uint64(a[8:]))
}

// group reports whether an address is of several hosts: multicast, or IPv4's broadcast.
func (a *Addr) group() bool {
	return a[0] == 0xff || a[10] == 0xff && a[0]|a[1] == 0 && (a[12]>>4 == 0xe || [4]byte(a[12:]) == [4]byte{255, 255, 255, 255})
}

// pairOf is the same in both directions.
func pairOf(p *Packet) uint8 { return uint8(mixAddr(&p.Src, 0)+mixAddr(&p.Dst, 0)) % 64 }

// fingerprint is a hash of what a frame has behind its link header and tags, and its
// time to live. What routers and network cards write, the time to live and the
// checksums, is no part of the hash.
func fingerprint(f *Frame) (print uint64, ttl uint8) {
	b := network(f)
	var w [seenBytes]byte
	n := copy(w[:], b)
	head := 0
	var proto uint8
	switch {
	case n >= ipv4Header && w[0]>>4 == 4:
		n = min(n, int(binary.BigEndian.Uint16(w[2:]))) // behind it is padding
		ttl, proto, head = w[8], w[9], int(w[0]&0x0f)*4
		w[8], w[10], w[11] = 0, 0, 0
		if w[6]&0x1f|w[7] != 0 {
			proto = 0 // a later fragment
		}
	case n >= ipv6Header && w[0]>>4 == 6:
		n = min(n, ipv6Header+int(binary.BigEndian.Uint16(w[4:])))
		ttl, proto, head = w[7], w[6], ipv6Header
		w[7] = 0
	}
	switch {
	case proto == ProtoTCP && head+18 <= n:
		w[head+16], w[head+17] = 0, 0
	case proto == ProtoUDP && head+8 <= n:
		w[head+6], w[head+7] = 0, 0
	}
	clear(w[n:])
	for i := 0; i < n; i += 16 {
		print = mix(binary.LittleEndian.Uint64(w[i:])^print, binary.LittleEndian.Uint64(w[i+8:]))
	}
	return print, ttl
}

// network returns what is behind the link header and VLAN tags of a frame.
func network(f *Frame) []byte {
	b := f.Data
	head := 0
	switch f.Link {
	case LinkEthernet:
		head = 14
		for range maxVLAN {
			if len(b) < head+4 {
				break
			}
			switch binary.BigEndian.Uint16(b[head-2:]) {
			case etherVLAN, etherQinQ, etherQinQ91, etherQinQ92:
				head += 4
				continue
			}
			break
		}
	case LinkSLL:
		head = 16
	case LinkSLL2:
		head = 20
	case LinkNull, LinkLoop:
		head = 4
	}
	return b[min(head, len(b)):]
}

// tcpFlow is what both sides of a TCP connection were seen to send and to acknowledge,
// until it is decided whether one of them is not seen at all.
type tcpFlow struct {
	tag  uint32
	over bool
	side [2]tcpSide
}

type tcpSide struct {
	end, ack uint32 // sequence number behind what it sent; the last it acknowledged
	unseen   uint8  // times that it acknowledged more, which was not seen
	sent     bool
	acked    bool
	begun    bool // its SYN was seen
}

// seeTCP takes a TCP segment as evidence of what its interface shows. A missing answer
// is none, since floods and scans get none: what counts is that a host acknowledges data.
// A connection is evidence once: of a whole mirror when a host acknowledges what the other
// was seen to send, of a one-way mirror when it acknowledges again and again what was
// not seen to be sent. Both sides may come on different interfaces.
func (m *mirrors) seeTCP(p *Packet, on *Mirror) {
	src, dst := mixAddr(&p.Src, uint64(p.SrcPort)), mixAddr(&p.Dst, uint64(p.DstPort))
	h := (src + dst) * 0x9e3779b97f4a7c15
	f := &m.flows[h>>52]
	if tag := uint32(h) | 1; f.tag != tag || f.over && p.Flags&(SYN|ACK) == SYN {
		*f = tcpFlow{tag: tag}
	}
	if f.over || src == dst {
		return
	}
	me, other := &f.side[0], &f.side[1]
	if src < dst {
		me, other = other, me
	}
	syn := p.Flags&SYN != 0
	me.begun = me.begun || syn
	if p.Flags&ACK != 0 {
		if ahead := int32(p.Ack - other.end); other.sent && ahead <= 0 && ahead > -maxAdvance {
			f.over = true
			on.addFlow(false)
			return
		}
		more := int32(p.Ack - me.ack)
		switch {
		case p.Flags&RST != 0:
		case !me.acked:
			me.acked, me.ack = true, p.Ack
			if me.begun {
				me.unseen = 1 // the other's SYN
			}
		case more > maxAdvance || more < -maxAdvance:
			f.over = true // by nobody who received data
			return
		case more > 0:
			me.unseen++
			me.ack = p.Ack
		}
		// Who joins in the middle may see some acknowledgements before the next data.
		if me.unseen >= 4 || me.begun && me.unseen >= 2 {
			f.over = true
			on.addFlow(true)
			return
		}
	}
	end := p.Seq + uint32(p.PayloadLen)
	if p.Flags&(SYN|FIN) != 0 {
		end++
	}
	if !me.sent || int32(end-me.end) > 0 {
		me.sent, me.end = true, end
	}
}

// addFlow counts a connection of which one side is not seen, or a whole one.
func (m *Mirror) addFlow(one bool) {
	if one {
		m.OneWayFlows++
		m.one++
	} else {
		m.WholeFlows++
		m.whole++
	}
	if m.one+m.whole == 64 {
		m.one, m.whole = m.one/2, m.whole/2
	}
	switch {
	case m.one >= minFlows && m.one >= 3*m.whole:
		m.OneWay = true
	case m.whole > m.one:
		m.OneWay = false
	}
}
