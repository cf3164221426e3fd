package features

import (
	"math"
	"math/bits"

	"github.com/picket-ids/picket/capture"
)

const (
	entropyLen = 1024 // octets of a payload that the entropy is of, at most
	headLen    = 8    // sizes that every connection has room for
)

var flowKind = groupKind{func(opener) group { return new(flows) }}

// flowState is what the flow group keeps of one connection. It holds no pointers.
type flowState struct {
	side     [2]flowSide
	syn      int64          // ns, the last SYN before its answer
	answered int64          // ns, the SYN-ACK
	acked    int64          // ns, its acknowledgement
	sizes    [headLen]int16 // payloads, negative from the responder
	tail     int32          // index+1 of the sizes behind them, 0 for none
	packets  uint8          // of which the size is kept
	shaken   handshake
}

// handshake says which of a TCP connection's opening packets were seen, in any order.
type handshake uint8

const (
	sentSYN handshake = 1 << iota
	sentAnswer
	sentAck
	allShaken = sentSYN | sentAnswer | sentAck
)

// open takes a TCP packet of the given side, whose time is at.
func (c *flowState) open(p *capture.Packet, side int, at int64) {
	switch flags := p.Flags & (capture.SYN | capture.ACK | capture.RST); {
	case side == originator && flags == capture.SYN:
		if c.shaken&sentAnswer == 0 || c.shaken&sentSYN == 0 && at <= c.answered {
			c.syn = at
			c.shaken |= sentSYN
		}
	case side == responder && flags == capture.SYN|capture.ACK && c.shaken&sentAnswer == 0:
		c.answered = at
		if c.shaken |= sentAnswer; c.acked < at { // what came before acknowledges something else
			c.shaken &^= sentAck
		}
	case side == originator && flags == capture.ACK && c.shaken&sentAck == 0:
		c.acked = at
		c.shaken |= sentAck
	}
}

// since returns the seconds from the SYN to time, 0 unless all of need were seen in order.
func (c *flowState) since(need handshake, time int64) float64 {
	if c.shaken&need != need || time < c.syn {
		return 0
	}
	return float64(time-c.syn) / 1e9
}

// flowSide is one direction of it.
type flowSide struct {
	packets     uint64
	octets      uint64 // of frames on the wire
	sum         uint64 // of the payloads
	squares     uint64 // of the payloads: overflows past 2^32 packets of 64 KiB
	first, last int64  // ns, packets
	// swing is the sum of the squared deviations of the gaps between packets
	// from their mean, ns² (Welford 1962: no cancellation).
	swing            float64
	gapMin, gapMax   float32 // s
	entropy          float32 // bits per octet, of the first payload
	flags            [8]uint32
	minSize, maxSize uint16 // payload
	window           uint16 // of the first packet
	minWindow        uint16
	ttl              uint8 // of the first packet
	minTTL, maxTTL   uint8
	spoke            bool // entropy is valid
}

// flows is the state of the group. Most connections of a flood have few packets:
// the sizes past the first eight have memory of their own.
type flows struct {
	columnsOf[flowState]
	noPast
	conns perConn[flowState]
	tails perConn[flowTail]
	free  int32 // index+1 of the first of the tails to be used again
	used  int32 // tails ever taken
}

type flowTail struct {
	sizes [seriesLen - headLen]int16
	next  int32 // in the list of free ones
}

// begin makes room for connection i.
func (f *flows) begin(i int32) {
	if int(i/chunkLen) < len(f.conns.chunks) {
		if t := f.conns.at(i).tail; t > 0 { // of the connection that had the index before
			f.tails.at(t - 1).next = f.free
			f.free = t
		}
	}
	f.conns.begin(i)
}

func (f *flows) row(i int32, _ *conn, _ *sample, values []float32) { f.set(values, f.conns.at(i)) }

func (f *flows) packet(i int32, _ *conn, p *capture.Packet, side int, now int64, _ int) {
	c := f.conns.at(i)
	if c.packets < seriesLen {
		size := int16(min(p.PayloadLen, math.MaxInt16))
		if side == responder {
			size = -size
		}
		if c.packets < headLen {
			c.sizes[c.packets] = size
		} else {
			if c.tail == 0 {
				c.tail = f.newTail()
			}
			f.tails.at(c.tail - 1).sizes[c.packets-headLen] = size
		}
		c.packets++
	}
	c.side[side].add(p, now)
	at := max(min(p.Time, now), -maxTime) // earlier than now if it was stored late
	if at < c.side[side].first {
		c.side[side].first = at
	}
	if c.shaken != allShaken && hasTCP(p) {
		c.open(p, side, at)
	}
}

// swap gives each side of connection i what the other one has sent.
func (f *flows) swap(i int32) {
	c := f.conns.at(i)
	c.side[0], c.side[1] = c.side[1], c.side[0]
	for k := range c.sizes {
		c.sizes[k] = -c.sizes[k]
	}
	if c.tail > 0 {
		t := f.tails.at(c.tail - 1)
		for k := range t.sizes {
			t.sizes[k] = -t.sizes[k]
		}
	}
	c.shaken = 0
}

// hasTCP reports whether p comes with a TCP header.
func hasTCP(p *capture.Packet) bool {
	return p.Proto == capture.ProtoTCP && (p.FragmentOffset == 0 || p.Whole != nil && p.Flags != 0)
}

// newTail returns index+1 of a tail.
func (f *flows) newTail() int32 {
	t := f.free
	if t > 0 {
		f.free = f.tails.at(t - 1).next
		return t
	}
	f.tails.begin(f.used)
	f.used++
	return f.used
}

// bands transforms the sizes of connection i.
func (f *flows) bands(i int32, t *transform) bands {
	c := f.conns.at(i)
	for k, v := range c.sizes[:min(c.packets, headLen)] {
		t.put(k, float64(v))
	}
	if c.tail > 0 {
		for k, v := range f.tails.at(c.tail - 1).sizes[:c.packets-headLen] {
			t.put(headLen+k, float64(v))
		}
	}
	return t.run(int(c.packets))
}

// sizeBands are the wavelet bands of the size series.
type sizeBands struct {
	columnsOf[bands]
	noPast
	flows     *flows
	transform transform
	current   bands // of the row being made
}

var sizesKind = groupKind{func(open opener) group { return &sizeBands{flows: open(&flowKind).(*flows)} }}

func (b *sizeBands) row(i int32, _ *conn, _ *sample, values []float32) {
	b.current = b.flows.bands(i, &b.transform)
	b.set(values, &b.current)
}

func (d *flowSide) add(p *capture.Packet, now int64) {
	size := uint16(min(p.PayloadLen, math.MaxUint16))
	if d.packets == 0 {
		d.first = now
		d.minSize, d.maxSize = size, size
		d.window, d.minWindow = p.Window, p.Window
		d.ttl, d.minTTL, d.maxTTL = p.TTL, p.TTL, p.TTL
	} else {
		d.addGap(now)
		d.minSize, d.maxSize = min(d.minSize, size), max(d.maxSize, size)
		d.minTTL, d.maxTTL = min(d.minTTL, p.TTL), max(d.maxTTL, p.TTL)
	}
	d.last = now
	d.packets++
	d.octets += uint64(p.WireLen)
	d.sum += uint64(p.PayloadLen)
	d.squares += uint64(p.PayloadLen) * uint64(p.PayloadLen)
	if !d.spoke && len(p.Payload) > 0 {
		d.spoke = true
		d.entropy = float32(entropy(p.Payload[:min(len(p.Payload), entropyLen)]))
	}
	if !hasTCP(p) {
		return
	}
	if p.Flags&capture.RST == 0 { // a reset's window says nothing
		d.minWindow = min(d.minWindow, p.Window)
	}
	for k := range d.flags {
		d.flags[k] += uint32(p.Flags >> k & 1)
	}
}

func (d *flowSide) addGap(now int64) {
	gap := float64(now - d.last)
	s := float32(gap / 1e9)
	if d.packets == 1 {
		d.gapMin, d.gapMax = s, s
		return
	}
	d.gapMin, d.gapMax = min(d.gapMin, s), max(d.gapMax, s)
	n := float64(d.packets) // of gaps
	d.swing += float64((gap - float64(d.last-d.first)/(n-1)) * (gap - float64(now-d.first)/n))
}

func (d *flowSide) sizeMean() float64 { return ratio(float64(d.sum), float64(d.packets)) }

// sizeStd is the sample's standard deviation, by n-1 as nfstream's and
// CICFlowMeter's. The difference of n Σx² and (Σx)² is exact.
func (d *flowSide) sizeStd() float64 {
	n := d.packets
	if n < 2 {
		return 0
	}
	hi, lo := bits.Mul64(n, d.squares)
	sumHi, sumLo := bits.Mul64(d.sum, d.sum)
	lo, borrow := bits.Sub64(lo, sumLo, 0)
	hi, _ = bits.Sub64(hi, sumHi, borrow)
	return math.Sqrt((float64(float64(hi)*0x1p64) + float64(lo)) / float64(n) / float64(n-1))
}

func (d *flowSide) gapMean() float64 {
	if d.packets < 2 {
		return 0
	}
	return float64(d.last-d.first) / float64(d.packets-1) / 1e9
}

// gapStd is likewise by n-1, of the n gaps.
func (d *flowSide) gapStd() float64 {
	if d.packets < 3 {
		return 0
	}
	return math.Sqrt(max(0, d.swing)/float64(d.packets-2)) / 1e9
}

// seconds is the time from the first to the last packet.
func (f *flowState) seconds() float64 {
	a, b := &f.side[originator], &f.side[responder]
	switch {
	case a.packets == 0:
		a = b
	case b.packets == 0:
		b = a
	}
	return float64(max(a.last, b.last)-min(a.first, b.first)) / 1e9
}

// entropy returns the Shannon entropy of b's octets, 0 to 8 bits; b has at most
// entropyLen. Whole numbers make the sum exact, and so 0 for one value.
func entropy(b []byte) float64 {
	if len(b) == 0 {
		return 0
	}
	var counts [256]uint16
	sum := uint64(0) // of n log2 n over the counts n
	for _, c := range b {
		n := counts[c]
		sum += nLogN[n+1] - nLogN[n]
		counts[c] = n + 1
	}
	return float64(nLogN[len(b)]-sum) / (1 << 40) / float64(len(b))
}

// nLogN holds n log2 n in units of 2^-40.
var nLogN = func() (l [entropyLen + 1]uint64) {
	for n := 2; n < len(l); n++ {
		l[n] = uint64(math.Round(float64(n) * (ln(float64(n)) / math.Ln2) * (1 << 40)))
	}
	return l
}()

func flow(name, unit, doc string, value func(*flowState) float64) Feature {
	return Feature{Name: name, Group: "flow", Unit: unit, Doc: doc,
		Source: "nfstream, CICFlowMeter", needs: &flowKind, value: value}
}

// flowGroup describes both directions of a connection: forward is what its
// originator sends, backward what comes back. All figures are of the whole
// connection so far, in the rows of active timeouts too.
var flowGroup = func() (all []Feature) {
	all = append(all,
		flow("flow_duration", "s", "last packet minus first packet, to the nanosecond, both directions", func(f *flowState) float64 { return f.seconds() }),
		flow("handshake_time", "s", "TCP: from the last SYN before the SYN-ACK to the originator's first ACK of it, the initial round trip time; 0 when not all three were seen", func(f *flowState) float64 { return f.since(allShaken, f.acked) }),
		flow("answer_time", "s", "TCP: from that SYN to the SYN-ACK; 0 when not both were seen", func(f *flowState) float64 { return f.since(sentSYN|sentAnswer, f.answered) }),
		flow("packet_rate", "1/s", "packets of both directions / flow_duration; 0 when that is 0", func(f *flowState) float64 {
			return ratio(float64(f.side[0].packets+f.side[1].packets), f.seconds())
		}),
		flow("byte_rate", "bytes/s", "bytes on the wire of both directions / flow_duration; 0 when that is 0", func(f *flowState) float64 {
			return ratio(float64(f.side[0].octets+f.side[1].octets), f.seconds())
		}),
		flow("down_up_ratio", "ratio", "bwd_packets / fwd_packets; 0 when the originator sent none", func(f *flowState) float64 {
			return ratio(float64(f.side[1].packets), float64(f.side[0].packets))
		}),
	)
	for side, way := range []string{"fwd", "bwd"} {
		one := func(name, unit, doc string, value func(*flowSide) float64) {
			all = append(all, flow(way+"_"+name, unit, []string{"originator to responder: ", "responder to originator: "}[side]+doc,
				func(f *flowState) float64 { return value(&f.side[side]) }))
		}
		one("packets", "count", "packets, fragments and retransmissions counted each", func(d *flowSide) float64 { return float64(d.packets) })
		one("bytes", "bytes", "lengths of the frames on the wire, from the link layer up", func(d *flowSide) float64 { return float64(d.octets) })
		one("payload_mean", "bytes", "mean transport payload of a packet, empty ones included", (*flowSide).sizeMean)
		one("payload_std", "bytes", "sample standard deviation (n-1) of the payload; 0 for one packet", (*flowSide).sizeStd)
		one("payload_min", "bytes", "least payload of a packet", func(d *flowSide) float64 { return float64(d.minSize) })
		one("payload_max", "bytes", "largest payload of a packet", func(d *flowSide) float64 { return float64(d.maxSize) })
		one("gap_mean", "s", "mean time between one packet and the next of the same direction; 0 for one packet", (*flowSide).gapMean)
		one("gap_std", "s", "sample standard deviation (n-1) of these gaps; 0 for fewer than two", (*flowSide).gapStd)
		one("gap_min", "s", "least gap", func(d *flowSide) float64 { return float64(d.gapMin) })
		one("gap_max", "s", "largest gap", func(d *flowSide) float64 { return float64(d.gapMax) })
		for bit, flag := range []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"} {
			one(flag, "count", "TCP packets with "+[]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"}[bit],
				func(d *flowSide) float64 { return float64(d.flags[bit]) })
		}
		one("window", "bytes", "TCP window of the first packet, unscaled; 0 when not TCP", func(d *flowSide) float64 { return float64(d.window) })
		one("window_min", "bytes", "least TCP window, unscaled, that of resets left out; 0 when not TCP", func(d *flowSide) float64 { return float64(d.minWindow) })
		one("ttl", "hops", "TTL or hop limit of the first packet, as captured", func(d *flowSide) float64 { return float64(d.ttl) })
		one("ttl_range", "hops", "largest less least TTL or hop limit", func(d *flowSide) float64 { return float64(d.maxTTL - d.minTTL) })
		one("entropy", "bits", "Shannon entropy per byte, 0 to 8, of the first 1 KiB of the first payload as far as captured; 0 without payload", func(d *flowSide) float64 { return float64(d.entropy) })
	}
	for k := range headLen {
		n := string(rune('1' + k))
		all = append(all, flow("size_"+n, "bytes", "payload of packet "+n+" of both directions, at most 32,767, negative from the responder; 0 when there is none",
			func(f *flowState) float64 { return float64(f.sizes[k]) }))
	}
	for k := range waveletLevels {
		n := string(rune('1' + k))
		f := flow("size_energy_"+n, "share", "share of the wavelet detail energy that lies in band "+n+" (1 is the finest) of the first 64 payloads of both directions, negative from the responder (Daubechies 4, periodised); 0 when all are the same", nil)
		f.needs, f.value = &sizesKind, func(b *bands) float64 { return ratio(b.energy[k], b.total()) }
		all = append(all, f)
	}
	return all
}()

// ratio is a/b, 0 when b is not positive.
func ratio(a, b float64) float64 {
	if b <= 0 {
		return 0
	}
	return a / b
}
