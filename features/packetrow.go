package features

import (
	"fmt"

	"github.com/picket-ids/picket/capture"
)

// PacketRow is a row of a packet.
const PacketRow RowKind = "packet"

var packetKind = rowKind{name: PacketRow, groups: [][]Feature{packetGroup}, identity: flowIdentity, open: newPacketRows}

// need is what the features of packets are computed from besides the packet.
type need uint8

const (
	needArrivals need = 1 << iota // the source's packets of the last 5 s
	needSeries                    // the sizes of its last 64
	needBands                     // their wavelet transform; with needSeries
)

// packetSample is what the features of a packet's row are computed from.
type packetSample struct {
	size             uint32
	gap              float64 // s since the source's packet before
	count            uint32  // the source's packets of the last 5 s
	mean             float64 // of the source's last sizes
	bands            bands
	proto, flags     uint8
	srcPort, dstPort uint16
}

func ofPacket(name, unit, doc string, needs need, value func(*packetSample) float64) Feature {
	return Feature{Name: name, Group: "packet", Unit: unit, Doc: doc, Source: "Embedded System Network Security data set",
		needs: needs, value: value}
}

// packetGroup holds the features of single packets. A source is an address; what
// counts its packets counts the current one too.
var packetGroup = []Feature{
	ofPacket("packet_size", "bytes", "octets of the frame on the wire", 0,
		func(s *packetSample) float64 { return float64(s.size) }),
	ofPacket("inter_arrival_time", "s", "time since the same source's previous packet; 0 for its first", 0,
		func(s *packetSample) float64 { return s.gap }),
	ofPacket("packet_count_5s", "count", "the same source's packets in the last 5 s; beyond 64, those of the last 5 s to 5.078 s", needArrivals,
		func(s *packetSample) float64 { return float64(s.count) }),
	ofPacket("mean_packet_size", "bytes", "mean packet_size of the same source's last 64 packets", needSeries,
		func(s *packetSample) float64 { return s.mean }),
	ofPacket("spectral_entropy", "share", "Shannon entropy of the wavelet detail energies (Daubechies 4, periodised, 5 levels) of the same source's last 64 packet sizes, over the log of the number of bands; 0 for constant sizes or fewer than 3 packets", needSeries|needBands,
		func(s *packetSample) float64 { return s.bands.entropy() }),
	ofPacket("frequency_band_energy", "share", "share of these energies in the two finest bands; 0 for constant sizes or fewer than 2 packets", needSeries|needBands,
		func(s *packetSample) float64 { return s.bands.fine() }),
	ofPacket("src_port", "port", "source port, 0 when there is none", 0,
		func(s *packetSample) float64 { return float64(s.srcPort) }),
	ofPacket("dst_port", "port", "destination port, 0 when there is none", 0,
		func(s *packetSample) float64 { return float64(s.dstPort) }),
	categorical(ofPacket("protocol_type", code, "protocol, by either port: tcp 0, udp 1, icmp 2, gtp 3, sip 4, diameter 5, other 6", 0,
		func(s *packetSample) float64 { return float64(packetProtocol(s.proto, s.srcPort, s.dstPort)) }), protocolNames[:]),
	categorical(ofPacket("tcp_flags", code, "what a TCP segment is for: RST, else SYN or SYN-ACK, else FIN, else ACK, with or without other flags; none without these, and for what is not TCP", 0,
		func(s *packetSample) float64 { return float64(tcpFlags(s.proto, s.flags)) }), tcpFlagNames[:]),
}

// Codes of the feature tcp_flags.
const (
	flagsSYN = iota
	flagsSYNACK
	flagsFIN
	flagsRST
	flagsACK
	flagsNone
)

var tcpFlagNames = [...]string{"SYN", "SYN-ACK", "FIN", "RST", "ACK", "none"}

func tcpFlags(proto, flags uint8) int {
	switch {
	case proto != capture.ProtoTCP:
		return flagsNone
	case flags&capture.RST != 0:
		return flagsRST
	case flags&(capture.SYN|capture.ACK) == capture.SYN|capture.ACK:
		return flagsSYNACK
	case flags&capture.SYN != 0:
		return flagsSYN
	case flags&capture.FIN != 0:
		return flagsFIN
	case flags&capture.ACK != 0:
		return flagsACK
	}
	return flagsNone
}

// packetProtocol returns the code of protocol_type. A packet may go either way,
// so the port that names the protocol may be either; the destination's is first.
func packetProtocol(proto uint8, srcPort, dstPort uint16) int {
	if c := protocolCode(proto, dstPort); c == codeGTP || c == codeSIP || c == codeDiameter {
		return c
	}
	return protocolCode(proto, srcPort)
}

// protocolCode is the code of protocol_type that a responder's port gives.
func protocolCode(proto uint8, port uint16) int {
	base := codeOther
	switch proto {
	case capture.ProtoICMP, capture.ProtoICMPv6:
		return codeICMP
	case capture.ProtoTCP:
		base = codeTCP
	case capture.ProtoUDP:
		base = codeUDP
	case capture.ProtoSCTP:
	default:
		return codeOther
	}
	switch port {
	case portGTPC, portGTPU, portGTPPrime:
		if proto != capture.ProtoSCTP {
			return codeGTP
		}
	case portSIP, portSIPS:
		return codeSIP
	case portDiameter, portDiameterDTLS:
		return codeDiameter
	}
	return base
}

// sizes are those of a source's last packets. Like arrivals it holds no pointers.
type sizes struct {
	ring    [seriesLen]uint32
	next, n uint8
	alike   uint8 // of the last, equal to the last
	sum     uint64
}

func (s *sizes) add(size uint32) {
	at := &s.ring[s.next%seriesLen]
	if size != s.ring[(s.next-1)%seriesLen] {
		s.alike = 0
	}
	s.alike = min(s.alike+1, seriesLen)
	if s.n == seriesLen {
		s.sum -= uint64(*at)
	} else {
		s.n++
	}
	*at = size
	s.sum += uint64(size)
	s.next++
}

func (s *sizes) mean() float64 { return float64(s.sum) / float64(s.n) }

// bands transforms the series, unless it is constant: a flood's often is.
func (s *sizes) bands(t *transform) bands {
	if s.alike >= s.n {
		return bands{}
	}
	oldest := s.next - s.n
	for i := range s.n {
		t.put(int(i), float64(s.ring[(oldest+i)%seriesLen]))
	}
	return t.run(int(s.n))
}

// rateSpan is that of packet_count_5s.
const (
	rateSpan = 5 * second
	// rateStep is the resolution at which more than 64 packets within it are
	// counted.
	rateStep = rateSpan / 64
)

// arrivals counts a source's packets of the last rateSpan. As long as they are no
// more than 64 it has the time of each and is exact. Beyond, it counts those since
// the start of the step in which the span begins: none too few, and too many by
// less than come within a step (78 ms; for a steady stream 0.8 % on average).
type arrivals struct {
	time       [64]int64 // ns; a ring
	next, live uint8     // live of them, before next, lie in the span
	slot       uint8     // of steps, that of step
	step       int64     // the last packet's time in steps
	steps      [65]uint32
	sum        uint32 // of steps
}

// add counts a packet, no earlier than the one before, and returns how many there are.
func (a *arrivals) add(now int64) uint32 {
	const size = uint8(len(a.time))
	for a.live > 0 && a.time[(a.next-a.live)%size] < now-rateSpan {
		a.live--
	}
	exact := a.live < size
	if exact {
		a.live++
	}
	a.time[a.next%size] = now
	a.next++

	step := now / rateStep
	if step-a.step >= int64(len(a.steps)) {
		clear(a.steps[:])
		a.sum, a.step = 0, step
	}
	for a.step < step {
		a.step++
		if a.slot++; int(a.slot) == len(a.steps) {
			a.slot = 0
		}
		a.sum -= a.steps[a.slot]
		a.steps[a.slot] = 0
	}
	a.steps[a.slot]++
	a.sum++
	if exact {
		return uint32(a.live)
	}
	return a.sum
}

// DefaultMaxSources takes about 5 MB when full.
const DefaultMaxSources = 4096

// A PacketTracker is the Extractor of packets: it makes a row of each, from it and from
// what its source address sent before.
type PacketTracker struct {
	sources *lru[capture.Addr, int64] // ns, the last packet
	// The rest of a source's state, by its index in the table of sources.
	sizes    perConn[sizes]
	arrivals perConn[arrivals]

	now, back int64 // ns; back is Config.StepBack
	fillers   []filler[packetSample]
	needs     need
	transform transform
	sample    packetSample
	out       Row
	emit      func(*Row)
	stats     Stats
}

func newPacketRows(cfg Config, columns []column, emit func(*Row)) (Extractor, error) {
	limit := cfg.MaxSources
	if limit == 0 {
		limit = DefaultMaxSources
	}
	if limit < 1 || limit > 1<<24 {
		return nil, fmt.Errorf("%d sources at a time: give a number from 1 to %d", limit, 1<<24)
	}
	back, err := stepBack(cfg.StepBack)
	if err != nil {
		return nil, err
	}
	t := &PacketTracker{
		sources: newLRU[capture.Addr, int64](limit), back: back, fillers: newFillers[packetSample](columns), emit: emit,
	}
	for _, c := range columns {
		t.needs |= c.feature.needs.(need)
	}
	t.out.Values = make([]float32, len(columns))
	t.out.Kind, t.out.Ended = PacketRow, true
	return t, nil
}

// Stats returns the counters so far.
func (t *PacketTracker) Stats() Stats {
	s := t.stats
	s.Forgotten = t.sources.evicted
	return s
}

// Open returns the number of sources remembered.
func (t *PacketTracker) Open() int { return t.sources.table.len() }

// Add makes the row of one packet. A packet earlier than the one before it gets
// the time of that; when it is earlier by more than StepBack, time begins anew.
func (t *PacketTracker) Add(p *capture.Packet) {
	if p.ARP != nil {
		return // no IP packet
	}
	now := min(max(p.Time, -maxTime), maxTime)
	if now < t.now-t.back {
		t.Flush()
		t.stats.ClockSteps++
	} else {
		now = max(now, t.now)
	}
	t.now = now

	s := &t.sample
	s.size = uint32(max(p.WireLen, 0))
	s.proto, s.flags, s.srcPort, s.dstPort = p.Proto, p.Flags, p.SrcPort, p.DstPort
	last, isNew := t.sources.use(&p.Src, hashAddr(&p.Src))
	i := t.sources.newest
	if isNew {
		t.begin(i)
		*last = now
	}
	s.gap = float64(uint64(now-*last)) / 1e9 // 1<<63 at most
	*last = now
	if t.needs&needArrivals != 0 {
		s.count = t.arrivals.at(i).add(now)
	}
	if t.needs&needSeries != 0 {
		z := t.sizes.at(i)
		z.add(s.size)
		s.mean = z.mean()
		if t.needs&needBands != 0 {
			s.bands = z.bands(&t.transform)
		}
	}

	o := &t.out
	o.Time, o.Start, o.End = now, now, now
	o.Src, o.Dst, o.SrcPort, o.DstPort, o.Proto = p.Src, p.Dst, p.SrcPort, p.DstPort, p.Proto
	o.ICMPType, o.ICMPCode = p.ICMPType, p.ICMPCode
	o.Tunnel, o.TunnelID, o.OuterSrc, o.OuterDst = p.Tunnel, p.TunnelID, p.OuterSrc, p.OuterDst
	o.Packets, o.Octets = [2]uint64{1, 0}, [2]uint64{uint64(s.size), 0}
	fill(o.Values, t.fillers, &t.sample)
	t.stats.Rows++
	t.emit(o)
}

// begin makes room for the state of source i.
func (t *PacketTracker) begin(i int32) {
	if t.needs&needArrivals != 0 {
		t.arrivals.begin(i).step = t.now / rateStep
	}
	if t.needs&needSeries != 0 {
		t.sizes.begin(i)
	}
}

// Tick does nothing: a packet's row is made when it comes.
func (t *PacketTracker) Tick(int64) {}

// Flush forgets all sources: what follows begins a new time.
func (t *PacketTracker) Flush() {
	l := t.sources
	for l.oldest >= 0 {
		i := l.oldest
		l.unlink(l.table.at(i))
		l.table.remove(i)
	}
	t.now = -maxTime
}
