package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"
)

// frag4 is the part of an IPv4 payload from octet from to octet to.
func frag4(id, from, to int, proto uint8, body []byte) []byte {
	return frag4More(id, from, to, to < len(body), proto, body)
}

// frag6 has hop-by-hop options before the fragment header.
func frag6(id uint32, from, to int, next uint8, body []byte) []byte {
	v := from
	if to < len(body) {
		v |= 1
	}
	return ip6Packet(extHopByHop, x("2c 00 0104 00000000"), []byte{next, 0}, be16(v), be32(id), body[from:to])
}

// frag4More says itself whether more follow.
func frag4More(id, from, to int, more bool, proto uint8, body []byte) []byte {
	return ip4Packet(proto, func(h []byte) {
		binary.BigEndian.PutUint16(h[4:], uint16(id))
		fragmented(from, more)(h)
	}, body[from:to])
}

// step is a frame and what must become of it.
type step struct {
	data  []byte
	after float64 // seconds since the frame before
	want  string  // see describe
}

// describe tells what defragmentation has to do with a packet.
func describe(o Outcome, p *Packet) string {
	if !o.HasPacket() {
		return o.String()
	}
	s := fmt.Sprintf("%v %d", o, p.Proto)
	if p.SrcPort|p.DstPort != 0 {
		s += fmt.Sprintf(" %d>%d", p.SrcPort, p.DstPort)
	}
	if p.Proto == ProtoICMP || p.Proto == ProtoICMPv6 {
		s += fmt.Sprintf(" type %d id %x", p.ICMPType, p.ICMPID)
	}
	if p.Flags != 0 {
		s += fmt.Sprintf(" flags %#x", p.Flags)
	}
	if p.WrongFragment {
		s += " wrong"
	}
	if p.Whole != nil {
		s += " whole " + string(p.Whole)
	}
	if p.Tunnels > 0 {
		s += fmt.Sprintf(" in %v", p.Tunnel)
	}
	return s
}

func TestDefragment(t *testing.T) {
	const body = "0123456789abcdef0123456789ABCDEF" // 40 octets with the UDP header
	const first, later, orphan = "decoded 17 5353>53", "later fragment 17 5353>53", "orphan fragment"
	udp, udpB := udpDatagram(body), udpDatagram(strings.ToUpper(body))
	tcp := tcpSegment(SYN, "hi")
	echo, echo6 := join(x("0800 0000 beef 0001"), []byte(body)), join(x("8000 0000 beef 0001"), []byte(body))
	// f is a fragment of udp.
	f := func(id, from, to int) []byte { return frag4(id, from, to, ProtoUDP, udp) }
	tunnelled := udpTo(portGTPU, gtpPDU(0x30, 7, ip4Packet(ProtoTCP, nil, tcpSegment(ACK, body))))
	const inner = "decoded 6 40000>443 flags 0x10 in GTP-U"
	inVXLAN := func(vni uint32, in []byte) []byte {
		return outer4(ProtoUDP, udpTo(portVXLAN, vxlanFrame(vni, etherFrame(0x0800, in))))
	}
	// A fragment of the inner datagram, in a GTP-U of which each half is a frame.
	twice := func(from, to, half int) []byte {
		b := udpTo(portGTPU, gtpPDU(0x30, 7, f(1, from, to)))
		if half == 0 {
			return frag4(100+from, 0, 24, ProtoUDP, b)
		}
		return frag4(100+from, 24, len(b), ProtoUDP, b)
	}
	var many []step
	big := udpDatagram(strings.Repeat("12345678", maxFragments))
	for i := range maxFragments {
		want := later
		if i == 0 {
			want = first
		}
		many = append(many, step{frag4(1, 8*i, 8*i+8, ProtoUDP, big), 0, want})
	}
	for _, c := range []struct {
		name  string
		steps []step
		stats DefragStats
	}{
		{"in order", []step{{f(1, 0, 16), 0, first}, {f(1, 16, 32), 0, later}, {f(1, 32, 40), 0, later + " whole " + body}},
			DefragStats{Begun: 1, Whole: 1}},
		{"reversed", []step{{f(1, 32, 40), 0, orphan}, {f(1, 16, 32), 0, orphan}, {f(1, 0, 16), 0, first + " whole " + body}},
			DefragStats{Begun: 1, Whole: 1}},
		{"two interleaved", []step{{f(1, 0, 16), 0, first}, {frag4(2, 0, 16, ProtoUDP, udpB), 0, first},
			{frag4(2, 16, 40, ProtoUDP, udpB), 0, later + " whole " + strings.ToUpper(body)}, {f(1, 16, 40), 0, later + " whole " + body}},
			DefragStats{Begun: 2, Whole: 2}},
		{"same identifier, another protocol", []step{{f(1, 0, 16), 0, first}, {frag4(1, 8, 40, ProtoICMP, echo), 0, orphan}}, DefragStats{Begun: 2}},
		{"duplicates of each", []step{{f(1, 0, 16), 0, first}, {f(1, 0, 16), 0, first}, {f(1, 16, 40), 0, later + " whole " + body}, {f(1, 16, 40), 0, later}, {f(1, 0, 16), 0, first}},
			DefragStats{Begun: 1, Whole: 1}},
		{"both ports of a bridge, one behind the other", []step{{f(1, 0, 16), 0, first}, {f(1, 16, 40), 0, later + " whole " + body}, {f(1, 0, 16), 0, first}, {f(1, 16, 40), 0, later}},
			DefragStats{Begun: 1, Whole: 1}},
		{"identifier used again", []step{{f(1, 0, 16), 0, first}, {f(1, 16, 40), 0, later + " whole " + body},
			{frag4(1, 0, 24, ProtoUDP, udpB), 0, first}, {frag4(1, 24, 40, ProtoUDP, udpB), 0, later + " whole " + strings.ToUpper(body)}},
			DefragStats{Begun: 2, Whole: 2}},
		{"same range, other octets", []step{{f(1, 0, 24), 0, first}, {frag4(1, 0, 24, ProtoUDP, udpB), 0, first + " wrong"}, {f(1, 24, 40), 0, later}},
			DefragStats{Begun: 1, Wrong: 1}},
		{"overlap of equal octets", []step{{f(1, 0, 24), 0, first}, {f(1, 16, 40), 0, later + " wrong"}, {f(1, 24, 40), 0, later + " wrong"}},
			DefragStats{Begun: 1, Wrong: 1}},
		{"teardrop", []step{{frag4More(1, 0, 32, true, ProtoUDP, udp), 0, first}, {frag4More(1, 24, 28, false, ProtoUDP, udp), 0, later + " wrong"}, {f(1, 32, 40), 0, later}},
			DefragStats{Begun: 1, Wrong: 1}},
		{"teardrop, its later fragment first", []step{{frag4More(1, 24, 28, false, ProtoUDP, udp), 0, orphan}, {frag4More(1, 0, 32, true, ProtoUDP, udp), 0, first + " wrong"}},
			DefragStats{Begun: 1, Wrong: 1}},
		{"two ends", []step{{f(1, 0, 16), 0, first}, {frag4More(1, 24, 32, false, ProtoUDP, udp), 0, later}, {frag4More(1, 32, 40, false, ProtoUDP, udp), 0, later + " wrong"}, {f(1, 16, 24), 0, later}},
			DefragStats{Begun: 1, Wrong: 1}},
		{"more behind the end", []step{{f(1, 0, 16), 0, first}, {frag4More(1, 16, 24, false, ProtoUDP, udp), 0, later}, {frag4More(1, 24, 32, true, ProtoUDP, udp), 0, orphan}},
			DefragStats{Begun: 2, Whole: 1}},
		{"an end before what came", []step{{f(1, 24, 32), 0, orphan}, {f(1, 0, 16), 0, first}, {frag4More(1, 16, 20, false, ProtoUDP, udp), 0, later + " wrong"}},
			DefragStats{Begun: 1, Wrong: 1}},
		{"ping of death", []step{{f(1, 0, 16), 0, first}, {ip4Packet(ProtoUDP, func(h []byte) { copy(h[4:], x("0001 1fff")) }, []byte("12345678")), 0, later + " wrong"}, {f(1, 16, 40), 0, later}},
			DefragStats{Begun: 1, Wrong: 1}},
		{"middle not a multiple of 8", []step{{f(1, 0, 16), 0, first}, {frag4More(1, 16, 23, true, ProtoUDP, udp), 0, later + " wrong"}}, DefragStats{Begun: 1, Wrong: 1}},
		{"of no octets", []step{{f(1, 0, 16), 0, first}, {frag4More(1, 16, 16, true, ProtoUDP, udp), 0, later + " wrong"}}, DefragStats{Begun: 1, Wrong: 1}},
		{"wrong checksum", []step{{f(1, 0, 16), 0, first}, {at(f(1, 16, 32), 10, 0xbe, 0xef), 0, later + " wrong"}, {f(1, 16, 32), 0, later}, {f(1, 32, 40), 0, later}},
			DefragStats{Begun: 1, Wrong: 1}},
		{"timeout", []step{{f(1, 0, 16), 0, first}, {f(1, 16, 32), 29.9, later}, {f(1, 32, 40), 0.1, orphan}}, DefragStats{Begun: 2, TimedOut: 1}},
		{"timeout behind a younger one", []step{{f(1, 0, 16), 0, first}, {f(2, 0, 16), 20, first}, {f(1, 16, 40), 10, orphan}, {f(2, 16, 40), 0, later + " whole " + body}},
			DefragStats{Begun: 3, Whole: 1, TimedOut: 1}},
		{"the clock runs back", []step{{f(1, 0, 16), 0, first}, {f(1, 16, 32), -29, later}, {f(1, 32, 40), -2, orphan}}, DefragStats{Begun: 2, TimedOut: 1}},
		{"tiny fragments: nmap -f", []step{{frag4(1, 0, 8, ProtoTCP, tcp), 0, "later fragment 6 40000>443"}, {frag4(1, 8, 16, ProtoTCP, tcp), 0, "later fragment 6 40000>443"},
			{frag4(1, 16, 22, ProtoTCP, tcp), 0, "later fragment 6 40000>443 flags 0x2 whole hi"}}, DefragStats{Begun: 1, Whole: 1}},
		{"ICMP", []step{{frag4(1, 0, 16, ProtoICMP, echo), 0, "decoded 1 type 8 id beef"}, {frag4(1, 16, 40, ProtoICMP, echo), 0, "later fragment 1 type 8 id beef whole " + body}},
			DefragStats{Begun: 1, Whole: 1}},
		{"another transport", []step{{frag4(1, 0, 8, 89, udp), 0, "other transport 89"}, {frag4(1, 8, 40, 89, udp), 0, "later fragment 89 whole " + string(udp)}}, DefragStats{Begun: 1, Whole: 1}},
		{"UDP length that lies", []step{{frag4(1, 0, 16, ProtoUDP, at(udp, 5, 41)), 0, first}, {f(1, 16, 40), 0, later}}, DefragStats{Begun: 1, Whole: 1}},
		{"as many as may be", many, DefragStats{Begun: 1}},
		{"one more", append(many[:maxFragments:maxFragments], step{frag4(1, 8*maxFragments, 8*maxFragments+8, ProtoUDP, big), 0, later}), DefragStats{Begun: 1, TooMany: 1}},
		{"IPv6 behind hop-by-hop options", []step{{frag6(1, 0, 16, ProtoUDP, udp), 0, first}, {frag6(1, 16, 40, ProtoUDP, udp), 0, later + " whole " + body}}, DefragStats{Begun: 1, Whole: 1}},
		{"IPv6, extension header inside, next header of the later unlike the first's", []step{
			{frag6(1, 0, 24, extDestination, join(x("11 00 0104 00000000"), udp)), 0, first},
			{frag6(1, 24, 48, 59, join(make([]byte, 8), udp)), 0, later + " whole " + body}}, DefragStats{Begun: 1, Whole: 1}},
		{"IPv6 whose headers go beyond the first fragment", []step{{frag6(1, 0, 8, extDestination, join(x("11 01 010c 00000000 00000000 00000000"), udp)), 0, "bad length"}, {frag6(1, 8, 56, extDestination, join(make([]byte, 16), udp)), 0, orphan}},
			DefragStats{Begun: 1}},
		{"IPv6, nothing but an extension header in the first", []step{{frag6(1, 0, 8, extDestination, join(x("06 00 0104 00000000"), tcp)), 0, "later fragment 6"},
			{frag6(1, 8, 30, extDestination, join(x("06 00 0104 00000000"), tcp)), 0, "later fragment 6 40000>443 flags 0x2 whole hi"}}, DefragStats{Begun: 1, Whole: 1}},
		{"IPv6, ICMP behind that", []step{{frag6(1, 0, 8, extDestination, join(x("3a 00 0104 00000000"), echo6)), 0, "later fragment 58 type 0 id 0"},
			{frag6(1, 8, 48, extDestination, join(x("3a 00 0104 00000000"), echo6)), 0, "later fragment 58 type 128 id beef whole " + body}}, DefragStats{Begun: 1, Whole: 1}},
		{"GTP-U in fragments", []step{{frag4(1, 0, 48, ProtoUDP, tunnelled), 0, "decoded 17 49152>2152"}, {frag4(1, 48, len(tunnelled), ProtoUDP, tunnelled), 0, inner}}, DefragStats{Begun: 1, Whole: 1}},
		{"GTP-U in IPv6 fragments, reversed", []step{{frag6(1, 48, len(tunnelled), ProtoUDP, tunnelled), 0, orphan}, {frag6(1, 0, 48, ProtoUDP, tunnelled), 0, inner}}, DefragStats{Begun: 1, Whole: 1}},
		{"GRE in fragments", []step{{frag4(1, 0, 24, protoGRE, greFrame(0, 0x0800, ip4Packet(ProtoTCP, nil, tcp))), 0, "other transport 47"},
			{frag4(1, 24, 46, protoGRE, greFrame(0, 0x0800, ip4Packet(ProtoTCP, nil, tcp))), 0, "decoded 6 40000>443 flags 0x2 in GRE"}}, DefragStats{Begun: 1, Whole: 1}},
		{"fragments in VXLAN", []step{{inVXLAN(5, f(1, 0, 16)), 0, first + " in VXLAN"}, {inVXLAN(5, f(1, 16, 40)), 0, later + " whole " + body + " in VXLAN"}}, DefragStats{Begun: 1, Whole: 1}},
		{"fragments of two tenants", []step{{inVXLAN(5, f(1, 0, 16)), 0, first + " in VXLAN"}, {inVXLAN(6, f(1, 16, 40)), 0, orphan}, {f(1, 16, 40), 0, orphan}}, DefragStats{Begun: 3}},
		{"fragments in VXLAN, reversed", []step{{inVXLAN(5, f(1, 16, 40)), 0, "decoded 17 49152>4789"}, {inVXLAN(5, f(1, 0, 16)), 0, first + " whole " + body + " in VXLAN"},
			{inVXLAN(5, f(2, 16, 40)), 0, orphan}, {inVXLAN(5, f(2, 0, 16)), 0, first + " whole " + body + " in VXLAN"}}, DefragStats{Begun: 2, Whole: 2}},
		{"an orphan in the tunnel of another kind", []step{{inVXLAN(5, f(1, 0, 16)), 0, first + " in VXLAN"}, {outer4(protoIPIP, f(2, 16, 40)), 0, "other transport 4"}}, DefragStats{Begun: 2}},
		{"an orphan in GTP-U in VXLAN", []step{{inVXLAN(5, outer4(ProtoUDP, udpTo(portGTPU, gtpPDU(0x30, 7, f(1, 16, 40))))), 0, "decoded 17 49152>2152 in VXLAN"}}, DefragStats{Begun: 1}},
		{"fragments in GTP-U in fragments", []step{{twice(0, 16, 0), 0, "decoded 17 49152>2152"}, {twice(0, 16, 1), 0, first + " in GTP-U"},
			{twice(16, 40, 1), 0, orphan}, {twice(16, 40, 0), 0, later + " whole " + body + " in GTP-U"}}, DefragStats{Begun: 3, Whole: 3}},
		{"a later fragment in GTP-U in fragments", []step{{twice(16, 40, 0), 0, "decoded 17 49152>2152"}, {twice(16, 40, 1), 0, "later fragment 17 49152>2152 whole " + string(gtpPDU(0x30, 7, f(1, 16, 40)))}}, DefragStats{Begun: 2, Whole: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d Decoder
			p := Packet{Whole: []byte("left over")}
			now := int64(1e18)
			for i, s := range c.steps {
				now += int64(s.after * 1e9)
				fr := Frame{Data: s.data, WireLen: len(s.data), Time: now, Link: LinkRaw}
				o := d.Decode(&fr, &p)
				check(t, &fr, &d, &p, o)
				if got := describe(o, &p); got != s.want {
					t.Errorf("fragment %d: %q, want %q", i+1, got, s.want)
				}
			}
			if got := d.Defrag(); got != c.stats {
				t.Errorf("%+v, want %+v", got, c.stats)
			}
		})
	}
}

// TestDefragmentCut has fragments of which the capture kept 40 octets.
func TestDefragmentCut(t *testing.T) {
	udp := udpDatagram(strings.Repeat("x", 92))
	var d Decoder
	var p Packet
	for i, want := range []string{"decoded 17 5353>53", "later fragment 17 5353>53"} {
		b := frag4(1, 48*i, 48+52*i, ProtoUDP, udp)
		if got := describe(d.Decode(&Frame{Data: b[:40:40], WireLen: len(b), Link: LinkRaw}, &p), &p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got, want := d.Defrag(), (DefragStats{Begun: 1, Cut: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestDefragmentEvicts begins datagrams until there is no room for the first.
func TestDefragmentEvicts(t *testing.T) {
	for _, c := range []struct {
		name  string
		size  int // octets of a first fragment
		begun int // datagrams that may begin before the first is forgotten
	}{
		{"by number", 16, maxDatagrams},
		{"by octets", 8192, fragmentLog / 8192},
	} {
		udp := udpDatagram(strings.Repeat("x", c.size))
		for n, want := range map[int]string{c.begun: "later fragment 17 5353>53 whole " + string(udp[8:]), c.begun + 1: "orphan fragment"} {
			var d Decoder
			var p Packet
			for id := range n {
				b := frag4(id, 0, c.size, ProtoUDP, udp)
				d.Decode(&Frame{Data: b, WireLen: len(b), Link: LinkRaw}, &p)
			}
			if got := d.Defrag(); got.Begun != uint64(n) || got.Evicted != uint64(n-c.begun) {
				t.Errorf("%s: %+v", c.name, got)
			}
			b := frag4(0, c.size, c.size+8, ProtoUDP, udp)
			if c.name == "by octets" && n == c.begun {
				want = "later fragment 17 5353>53" // there is no room for what completes it
			}
			if got := describe(d.Decode(&Frame{Data: b, WireLen: len(b), Link: LinkRaw}, &p), &p); got != want {
				t.Errorf("%s, %d begun: %.60q, want %.60q", c.name, n, got, want)
			}
		}
	}
}

// TestDefragmentReversed expects of fragments that come last-first the octets of
// those that come in order.
func TestDefragmentReversed(t *testing.T) {
	udp := udpDatagram(strings.Repeat("x", 3000))
	for _, c := range []struct {
		order   []int
		missing int // octets
	}{
		{[]int{0, 1, 2, 3}, 0},
		{[]int{3, 2, 1, 0}, 0},
		{[]int{3, 3, 2, 1, 0}, 0},
		{[]int{1, 3, 0, 2}, 0},
		{[]int{3, 0, 1, 2}, 8}, // see defragment
	} {
		for _, in := range []func([]byte) []byte{
			func(b []byte) []byte { return b },
			func(b []byte) []byte { return outer4(ProtoUDP, udpTo(portGTPU, gtpPDU(0x30, 7, b))) },
		} {
			var d Decoder
			var p Packet
			// A tunnel that carries nothing but orphans would be the packet.
			b := in(ip4Packet(ProtoUDP, nil, udpDatagram("")))
			d.Decode(&Frame{Data: b, WireLen: len(b), Link: LinkRaw}, &p)
			head := p.WireLen - udpHeader
			payload, wire := 0, 0
			for _, i := range c.order {
				b := in(frag4(1, 1000*i, min(1000*i+1000, len(udp)), ProtoUDP, udp))
				if d.Decode(&Frame{Data: b, WireLen: len(b), Link: LinkRaw}, &p).HasPacket() {
					payload += p.PayloadLen
					wire += p.WireLen
				}
			}
			wantPayload, wantWire := 3000, len(udp)+4*head
			if c.missing > 0 {
				wantPayload, wantWire = wantPayload-c.missing, wantWire-c.missing-head
			}
			if payload != wantPayload || wire != wantWire {
				t.Errorf("%v: %d octets, want %d; %d on the wire, want %d", c.order, payload, wantPayload, wire, wantWire)
			}
		}
	}
}

// split cuts n octets at random multiples of 8.
func split(r *rand.Rand, n int) (cuts []int) {
	cuts = []int{0}
	for at := 0; ; {
		at += 8 * (1 + r.IntN(max(1, (n/8+1)/(1+r.IntN(12)))))
		at = max(at, cuts[len(cuts)-1]+(n+maxFragments-8)/(maxFragments-8)&^7)
		if at >= n {
			return append(cuts, n)
		}
		cuts = append(cuts, at)
	}
}

// TestDefragmentProperty cuts random datagrams anywhere, shuffles the fragments,
// repeats some, and expects what the datagram in one piece gives, and no octet of
// it twice or never.
func TestDefragmentProperty(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var d Decoder
	var p, want Packet
	for n := range 3000 {
		payload := make([]byte, r.IntN(1<<r.IntN(16)+1))
		for i := range payload {
			payload[i] = byte(r.Uint32())
		}
		var body []byte
		proto := []uint8{ProtoTCP, ProtoUDP, ProtoSCTP, ProtoICMP}[r.IntN(4)]
		switch proto {
		case ProtoTCP:
			body = tcpSegment(ACK, string(payload))
		case ProtoUDP:
			body = udpDatagram(string(payload))
		case ProtoSCTP:
			body = join(be16(38412), be16(36412), make([]byte, 8), payload)
		case ProtoICMP:
			body = join(x("0800 0000 beef 0001"), payload)
		}
		six := r.IntN(2) == 0 && proto != ProtoICMP
		if len(body) <= 8 || len(body) > 65000 {
			continue
		}
		one := ip4Packet(proto, nil, body)
		if six {
			one = ip6Packet(proto, body)
		}
		if o := d.Decode(&Frame{Data: one, WireLen: len(one), Link: LinkRaw}, &want); o != Decoded {
			t.Fatal(o)
		}
		cuts := split(r, len(body))
		if len(cuts) == 2 {
			continue
		}
		order := r.Perm(len(cuts) - 1)
		for range r.IntN(3) {
			order = append([]int{order[r.IntN(len(order))]}, order...)
		}
		seen := map[int]bool{}
		wholes, payloads, wire := 0, 0, 0
		early, earlyWire, sent := 0, 0, 0 // octets before the first, all on the wire
		for _, i := range order {
			f := frag4(n, cuts[i], cuts[i+1], proto, body)
			if six {
				f = frag6(uint32(n), cuts[i], cuts[i+1], proto, body)
			}
			fr := Frame{Data: f, WireLen: len(f), Link: LinkRaw}
			o := d.Decode(&fr, &p)
			check(t, &fr, &d, &p, o)
			fresh := !seen[i]
			seen[i] = true
			switch {
			case fresh && o.HasPacket():
				payloads += p.PayloadLen
				wire += p.WireLen
				sent += len(f)
			case fresh:
				early += cuts[i+1] - cuts[i]
				earlyWire += len(f)
			}
			if seen[0] != o.HasPacket() {
				t.Fatalf("%v, first seen: %v", o, seen[0])
			}
			if !seen[0] {
				continue
			}
			if p.SrcPort != want.SrcPort || p.DstPort != want.DstPort || p.Proto != want.Proto || p.ICMPID != want.ICMPID || p.WrongFragment {
				t.Fatalf("fragment %d of %v: %+v", i, cuts, p)
			}
			if p.Whole != nil {
				wholes++
				if len(seen) != len(cuts)-1 || !bytes.Equal(p.Whole, want.Payload) {
					t.Fatalf("whole of %d octets, want %d", len(p.Whole), len(want.Payload))
				}
			}
		}
		all := want.PayloadLen
		if cuts[1] < len(body)-all { // the header is not told from the payload
			all = len(body)
		}
		if early > cuts[1] {
			sent += earlyWire
		} else {
			all -= early
		}
		if payloads != all || wire != sent {
			t.Fatalf("fragments %v at %v: %d octets of payload, want %d; %d on the wire, want %d", order, cuts, payloads, all, wire, sent)
		}
		if wholes != 1 {
			t.Fatalf("%d fragments at %v of %d octets, protocol %d: whole %d times: %+v", len(order), cuts, len(body), proto, wholes, d.Defrag())
		}
	}
	if s := d.Defrag(); s.Whole < 2000 || s.Whole != s.Begun {
		t.Errorf("%+v", s)
	}
}

// flood sends six fragments to d: a GTP-U packet in two, a stray one behind it,
// and three of a datagram that is never whole. sent counts them.
func flood(d *Decoder, frames []Frame, sent *int) {
	var p Packet
	for i := range frames {
		binary.BigEndian.PutUint16(frames[i].Data[4:], uint16(*sent/3)) // the checksum is left to the card
		*sent++
		d.Decode(&frames[i], &p)
	}
}

func floodFrames() (frames []Frame) {
	gtp := udpTo(portGTPU, gtpPDU(0x30, 7, ip4Packet(ProtoTCP, nil, tcpSegment(ACK, strings.Repeat("x", 1400)))))
	for _, b := range [][]byte{
		frag4(0, 0, 1000, ProtoUDP, gtp), frag4(0, 1000, len(gtp), ProtoUDP, gtp), frag4(0, 8, 16, ProtoUDP, gtp),
		frag4(0, 0, 1000, ProtoUDP, gtp), frag4(0, 1000, 1008, ProtoUDP, gtp), frag4(0, 1016, len(gtp), ProtoUDP, gtp),
	} {
		b[10], b[11] = 0, 0
		frames = append(frames, Frame{Data: b, WireLen: len(b), Link: LinkRaw})
	}
	return frames
}

func TestDefragmentAllocates(t *testing.T) {
	var d Decoder
	sent := 0
	frames := floodFrames()
	if n := testing.AllocsPerRun(20000, func() { flood(&d, frames, &sent) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	s := d.Defrag()
	if s.Whole == 0 || s.Evicted == 0 || s.Begun > s.Whole+s.Evicted+s.Wrong+maxDatagrams {
		t.Errorf("%+v", s)
	}
	if n := unsafe.Sizeof(defragmenter{}); n > 3<<19 {
		t.Errorf("the defragmenter takes %d octets", n)
	}
	// What was never in fragments needs no defragmenter.
	d = Decoder{}
	var p Packet
	b := nested(4, ip4Packet(ProtoTCP, nil, tcpSegment(SYN, "")))
	d.Decode(&Frame{Data: b, WireLen: len(b), Link: LinkRaw}, &p)
	if d.fragments != nil {
		t.Error("defragmenter without fragments")
	}
}

func BenchmarkDefragment(b *testing.B) {
	var d Decoder
	sent := 0
	frames := floodFrames()
	b.ReportAllocs()
	for b.Loop() {
		flood(&d, frames, &sent)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(frames)), "ns/packet")
}
