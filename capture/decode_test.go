package capture

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// Frames are built from the inside out; what is not given is plausible.

func x(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func be16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }

func etherFrame(typ int, payload ...[]byte) []byte {
	return join(x("020000000001 020000000002"), be16(typ), join(payload...))
}

func vlanTag(id, typ int, payload ...[]byte) []byte {
	return join(be16(0x6000|id), be16(typ), join(payload...)) // priority 3
}

// ip4Packet builds a header with a right checksum; edit changes it before that.
func ip4Packet(proto uint8, edit func(h []byte), payload ...[]byte) []byte {
	body := join(payload...)
	h := join(x("4500"), be16(20+len(body)), x("1234 0000 40"), []byte{proto}, x("0000 0a000001 0a000002"))
	if edit != nil {
		edit(h)
	}
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(h[i])<<8 | uint32(h[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
	return join(h, body)
}

func ip6Packet(next uint8, payload ...[]byte) []byte {
	body := join(payload...)
	return join(x("60000000"), be16(len(body)), []byte{next, 64},
		x("20010db8000000000000000000000001"), x("20010db8000000000000000000000002"), body)
}

func tcpSegment(flags uint8, payload string) []byte {
	return join(be16(40000), be16(443), x("00000001 00000002 50"), []byte{flags}, x("fff0 0000 0000"), []byte(payload))
}

func udpDatagram(payload string) []byte {
	return join(be16(5353), be16(53), be16(8+len(payload)), x("0000"), []byte(payload))
}

// at returns b with the octets v at offset i.
func at(b []byte, i int, v ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[i:], v)
	return b
}

func fragmented(offset int, more bool) func([]byte) {
	v := offset / 8
	if more {
		v |= 0x2000
	}
	return func(h []byte) { binary.BigEndian.PutUint16(h[6:], uint16(v)) }
}

var (
	v4a, v4b = AddrFrom(netip.MustParseAddr("10.0.0.1")), AddrFrom(netip.MustParseAddr("10.0.0.2"))
	v6a, v6b = AddrFrom(netip.MustParseAddr("2001:db8::1")), AddrFrom(netip.MustParseAddr("2001:db8::2"))
)

func v4(proto uint8, p Packet) Packet {
	p.Src, p.Dst, p.Version, p.Proto, p.TTL = v4a, v4b, 4, proto, 64
	return p
}

func v6(proto uint8, p Packet) Packet {
	p.Src, p.Dst, p.Version, p.Proto, p.TTL = v6a, v6b, 6, proto, 64
	return p
}

// ports adds those of tcpSegment and udpDatagram, and what else they hold.
func ports(p Packet) Packet {
	if p.Proto == ProtoTCP {
		p.SrcPort, p.DstPort, p.Seq, p.Ack, p.Window = 40000, 443, 1, 2, 0xfff0
		return p
	}
	p.SrcPort, p.DstPort = 5353, 53
	return p
}

// text sets the payload, all of it captured.
func text(s string, p Packet) Packet {
	p.Payload, p.PayloadLen = []byte(s), len(s)
	return p
}

// none stands for the zero MAC where a link that has addresses gives none: TestDecode
// expects those of etherFrame and of the cooked frames elsewhere.
var none = MAC{0xff}

// addressed sets the addresses that a frame of the link type has in all the tests.
func addressed(link LinkType, p Packet) Packet {
	switch link {
	case LinkEthernet:
		p.SrcMAC, p.DstMAC = MAC{2, 0, 0, 0, 0, 2}, MAC{2, 0, 0, 0, 0, 1}
	case LinkSLL, LinkSLL2:
		if p.SrcMAC != none {
			p.SrcMAC = MAC{2, 0, 0, 0, 0, 1}
			break
		}
		p.SrcMAC = MAC{}
	}
	return p
}

type decodeCase struct {
	name string
	link LinkType
	data []byte
	wire int // 0: len(data)
	out  Outcome
	want Packet // when out has a packet; Time and WireLen are set by the test
}

func decodeCases() []decodeCase {
	tcp4 := ip4Packet(ProtoTCP, nil, tcpSegment(SYN, "hello"))
	udp4 := ip4Packet(ProtoUDP, nil, udpDatagram("query"))
	tcp6 := ip6Packet(ProtoTCP, tcpSegment(SYN, "hello"))
	udp6 := ip6Packet(ProtoUDP, udpDatagram("query"))
	wantTCP4 := text("hello", ports(v4(ProtoTCP, Packet{Flags: SYN})))
	wantUDP4 := text("query", ports(v4(ProtoUDP, Packet{})))
	wantTCP6 := text("hello", ports(v6(ProtoTCP, Packet{Flags: SYN})))
	wantUDP6 := text("query", ports(v6(ProtoUDP, Packet{})))
	tagged := func(id uint16, p Packet) Packet { p.VLAN = id; return p }
	noMAC := func(p Packet) Packet { p.SrcMAC = none; return p }
	arpRequest := x("0001 0800 06 04 0001 020000000002 0a000001 000000000000 0a000002")
	arpWant := &ARPMessage{Op: 1, SenderMAC: MAC{2, 0, 0, 0, 0, 2}, Sender: v4a, Target: v4b}
	frag := func(offset uint16, n int, more, wrong bool, id uint32, p Packet) Packet {
		p.Fragment, p.FragmentOffset, p.FragmentLen, p.MoreFragments, p.FragmentID = true, offset, n, more, id
		p.WrongFragment = wrong
		return p
	}
	eight := "8 octets"
	quoted := ip4Packet(ProtoUDP, nil, udpDatagram(""))
	quotedWant := Quote{Src: v4a, Dst: v4b, Proto: ProtoUDP, SrcPort: 5353, DstPort: 53}
	unreachable := func(q []byte, quote Quote) Packet {
		return text(string(q), v4(ProtoICMP, Packet{ICMPType: 3, ICMPCode: 3, Quoted: quote, HasQuote: quote != Quote{}}))
	}
	return []decodeCase{
		// Link layers.
		{"ethernet, TCP", LinkEthernet, etherFrame(0x0800, tcp4), 0, Decoded, wantTCP4},
		{"ethernet, UDP over IPv6", LinkEthernet, etherFrame(0x86dd, udp6), 0, Decoded, wantUDP6},
		{"ethernet padding is no payload", LinkEthernet, etherFrame(0x0800, udp4, make([]byte, 13)), 0, Decoded, wantUDP4},
		{"ethernet padding of IPv6", LinkEthernet, etherFrame(0x86dd, udp6, x("ffffffff")), 0, Decoded, wantUDP6},
		{"ARP", LinkEthernet, etherFrame(0x0806, arpRequest), 0, ARP, Packet{ARP: arpWant}},
		{"ARP, tagged and padded", LinkEthernet, etherFrame(0x8100, vlanTag(7, 0x0806, arpRequest, make([]byte, 14))), 0, ARP, tagged(7, Packet{ARP: arpWant})},
		{"ARP of IEEE 802 networks", LinkEthernet, etherFrame(0x0806, at(arpRequest, 0, 0, 6)), 0, ARP, Packet{}},
		{"ARP of another protocol than IPv4", LinkEthernet, etherFrame(0x0806, at(arpRequest, 2, 0x88, 0xcc)), 0, ARP, Packet{}},
		{"ARP with addresses of 8 bytes", LinkEthernet, etherFrame(0x0806, at(arpRequest, 4, 8)), 0, BadLength, Packet{}},
		{"ARP with IPv4 addresses of 6 bytes", LinkEthernet, etherFrame(0x0806, at(arpRequest, 5, 6)), 0, BadLength, Packet{}},
		{"ARP of operation 0", LinkEthernet, etherFrame(0x0806, at(arpRequest, 6, 0, 0)), 0, BadHeader, Packet{}},
		{"ARP that ends before its addresses", LinkEthernet, etherFrame(0x0806, arpRequest[:27]), 0, BadLength, Packet{}},
		{"ARP that ends before its types", LinkEthernet, etherFrame(0x0806, arpRequest[:7]), 0, BadLength, Packet{}},
		{"ARP cut by snaplen", LinkEthernet, etherFrame(0x0806, arpRequest[:20]), 42, Truncated, Packet{}},
		{"LLDP", LinkEthernet, etherFrame(0x88cc, make([]byte, 46)), 0, NotIP, Packet{}},
		{"runt of 13 octets", LinkEthernet, make([]byte, 13), 0, BadLength, Packet{}},
		{"ethernet header cut by snaplen 10", LinkEthernet, make([]byte, 10), 60, Truncated, Packet{}},
		{"802.1Q", LinkEthernet, etherFrame(0x8100, vlanTag(7, 0x0800, tcp4)), 0, Decoded, tagged(7, wantTCP4)},
		{"802.1Q with priority only", LinkEthernet, etherFrame(0x8100, vlanTag(0, 0x0800, tcp4)), 0, Decoded, wantTCP4},
		{"QinQ 802.1ad keeps the outer tag", LinkEthernet, etherFrame(0x88a8, vlanTag(100, 0x8100, vlanTag(7, 0x0800, tcp4))), 0, Decoded, tagged(100, wantTCP4)},
		{"QinQ 0x9100", LinkEthernet, etherFrame(0x9100, vlanTag(100, 0x8100, vlanTag(7, 0x86dd, udp6))), 0, Decoded, tagged(100, wantUDP6)},
		{"QinQ 0x9200", LinkEthernet, etherFrame(0x9200, vlanTag(100, 0x0800, udp4)), 0, Decoded, tagged(100, wantUDP4)},
		{"eight tags", LinkEthernet, etherFrame(0x8100, bytes.Repeat(vlanTag(7, 0x8100), 7), vlanTag(7, 0x0800, tcp4)), 0, Decoded, tagged(7, wantTCP4)},
		{"nine tags", LinkEthernet, etherFrame(0x8100, bytes.Repeat(vlanTag(7, 0x8100), 8), vlanTag(7, 0x0800, tcp4)), 0, BadHeader, Packet{}},
		{"tag cut by snaplen", LinkEthernet, etherFrame(0x8100, x("0007")), 60, Truncated, Packet{}},
		{"tag without a frame", LinkEthernet, etherFrame(0x8100, x("0007")), 0, BadLength, Packet{}},
		{"802.3 SNAP", LinkEthernet, etherFrame(8+len(tcp4), x("aaaa03 000000 0800"), tcp4, make([]byte, 5)), 0, Decoded, wantTCP4},
		{"802.3 SNAP of 802.1H", LinkEthernet, etherFrame(8+len(tcp4), x("aaaa03 0000f8 0800"), tcp4), 0, Decoded, wantTCP4},
		{"802.3 SNAP of another organisation: CDP", LinkEthernet, etherFrame(46, x("aaaa03 00000c 2000"), make([]byte, 38)), 0, NotIP, Packet{}},
		{"802.3 LLC: spanning tree", LinkEthernet, etherFrame(38, x("424203"), make([]byte, 43)), 0, NotIP, Packet{}},
		{"802.3 length shorter than the IP packet", LinkEthernet, etherFrame(30, x("aaaa03 000000 0800"), tcp4), 0, BadLength, Packet{}},
		{"SLL", LinkSLL, join(x("0000 0001 0006 020000000001 0000 0800"), tcp4), 0, Decoded, wantTCP4},
		{"SLL, tagged", LinkSLL, join(x("0000 0001 0006 020000000001 0000 8100"), vlanTag(7, 0x86dd, udp6)), 0, Decoded, tagged(7, wantUDP6)},
		{"SLL, LLC", LinkSLL, join(x("0000 0001 0006 020000000001 0000 0004 aaaa03 000000 0800"), tcp4), 0, Decoded, wantTCP4},
		{"SLL, CAN", LinkSLL, join(x("0000 0118 0000 0000000000000000 000c"), make([]byte, 16)), 0, NotIP, Packet{}},
		{"SLL, no address: a tunnel's interface", LinkSLL, join(x("0000 fffe 0000 0000000000000000 0800"), tcp4), 0, Decoded, noMAC(wantTCP4)},
		{"SLL, address of 8 bytes: Infiniband's interface", LinkSLL, join(x("0000 0020 0008 0102030405060708 0800"), tcp4), 0, Decoded, noMAC(wantTCP4)},
		{"SLL cut", LinkSLL, make([]byte, 15), 100, Truncated, Packet{}},
		{"SLL2", LinkSLL2, join(x("86dd 0000 00000002 0001 00 06 020000000001 0000"), tcp6), 0, Decoded, wantTCP6},
		{"SLL2, ARP", LinkSLL2, join(x("0806 0000 00000002 0001 00 06 020000000001 0000"), arpRequest), 0, ARP, Packet{ARP: arpWant}},
		{"raw IPv4", LinkRaw, tcp4, 0, Decoded, wantTCP4},
		{"raw IPv6", LinkRaw, tcp6, 0, Decoded, wantTCP6},
		{"raw, version 0", LinkRaw, make([]byte, 40), 0, BadHeader, Packet{}},
		{"raw, empty", LinkRaw, nil, 0, BadLength, Packet{}},
		{"IPv4 link", LinkIPv4, udp4, 0, Decoded, wantUDP4},
		{"IPv4 link with IPv6", LinkIPv4, udp6, 0, BadHeader, Packet{}},
		{"IPv6 link", LinkIPv6, udp6, 0, Decoded, wantUDP6},
		{"IPv6 link with IPv4", LinkIPv6, ip4Packet(ProtoUDP, nil, make([]byte, 40)), 0, BadHeader, Packet{}},
		{"null, little-endian host", LinkNull, join(x("02000000"), tcp4), 0, Decoded, wantTCP4},
		{"null, big-endian host", LinkNull, join(x("00000002"), tcp4), 0, Decoded, wantTCP4},
		{"null, IPv6 of Darwin", LinkNull, join(x("1e000000"), tcp6), 0, Decoded, wantTCP6},
		{"null, IPv6 of FreeBSD", LinkNull, join(x("1c000000"), tcp6), 0, Decoded, wantTCP6},
		{"loop, IPv6 of OpenBSD", LinkLoop, join(x("00000018"), tcp6), 0, Decoded, wantTCP6},
		{"null, AppleTalk", LinkNull, join(x("10000000"), tcp6), 0, NotIP, Packet{}},
		{"802.11", 105, tcp4, 0, UnsupportedLink, Packet{}},

		// IPv4.
		{"IPv4 options", LinkRaw, ip4Packet(ProtoUDP, func(h []byte) { h[0] = 0x46 }, x("01010100"), udpDatagram("query")), 0, Decoded, wantUDP4},
		{"IPv4 header of 4 words", LinkRaw, at(tcp4, 0, 0x44), 0, BadLength, Packet{}},
		{"IPv4 header longer than the packet", LinkRaw, at(tcp4[:40], 0, 0x4f, 0, 0, 40), 0, BadLength, Packet{}},
		{"IPv4 total length shorter than its header", LinkRaw, at(tcp4, 2, 0, 19), 0, BadLength, Packet{}},
		{"IPv4 total length beyond the wire", LinkRaw, at(tcp4, 2, 0, byte(len(tcp4)+1)), 0, BadLength, Packet{}},
		{"IPv4 total length 0: segmentation offload", LinkRaw, at(tcp4, 2, 0, 0), 0, Decoded, wantTCP4},
		{"IPv4 header cut by snaplen", LinkRaw, tcp4[:19], 45, Truncated, Packet{}},
		{"IPv4 header too short for the wire", LinkRaw, tcp4[:19], 0, BadLength, Packet{}},
		{"IPv4 AH, TCP behind it", LinkRaw, ip4Packet(extAH, nil, x("06 04 0000 00000001 00000001 000000000000000000000000"), tcpSegment(ACK, "")), 0, Decoded, text("", ports(v4(ProtoTCP, Packet{Flags: ACK})))},
		{"ESP", LinkRaw, ip4Packet(50, nil, x("0000000100000001")), 0, OtherTransport, text("\x00\x00\x00\x01\x00\x00\x00\x01", v4(50, Packet{}))},
		{"IPv4 with ICMPv6", LinkRaw, ip4Packet(ProtoICMPv6, nil, x("8000000000010001")), 0, OtherTransport, text("\x80\x00\x00\x00\x00\x01\x00\x01", v4(ProtoICMPv6, Packet{}))},

		// Fragments.
		{"first fragment", LinkRaw, ip4Packet(ProtoUDP, fragmented(0, true), at(udpDatagram(eight), 4, 0x10)), 0, Decoded,
			frag(0, 16, true, false, 0x1234, text(eight, ports(v4(ProtoUDP, Packet{}))))},
		{"last fragment alone", LinkRaw, ip4Packet(ProtoUDP, fragmented(1480, false), []byte("tail")), 0, OrphanFragment, Packet{}},
		{"first fragment without a TCP header: nmap -f", LinkRaw, ip4Packet(ProtoTCP, fragmented(0, true), tcpSegment(SYN, "")[:8]), 0, LaterFragment,
			frag(0, 8, true, false, 0x1234, text(string(tcpSegment(SYN, "")[:8]), v4(ProtoTCP, Packet{SrcPort: 40000, DstPort: 443})))},
		{"first fragment within the TCP options", LinkRaw, ip4Packet(ProtoTCP, fragmented(0, true), at(tcpSegment(SYN, "opts"), 12, 0x70)), 0, Decoded,
			frag(0, 24, true, false, 0x1234, text("", ports(v4(ProtoTCP, Packet{Flags: SYN}))))},
		{"first fragment not a multiple of 8", LinkRaw, ip4Packet(ProtoUDP, fragmented(0, true), at(udpDatagram("seven.."), 4, 0x10)), 0, Decoded,
			frag(0, 15, true, true, 0x1234, text("seven..", ports(v4(ProtoUDP, Packet{}))))},
		{"first fragment with a wrong checksum", LinkRaw, at(ip4Packet(ProtoUDP, fragmented(0, true), at(udpDatagram(eight), 4, 0x10)), 10, 0xbe, 0xef), 0, Decoded,
			frag(0, 16, true, true, 0x1234, text(eight, ports(v4(ProtoUDP, Packet{}))))},
		{"first fragment whose checksum was left to the card", LinkRaw, at(ip4Packet(ProtoUDP, fragmented(0, true), at(udpDatagram(eight), 4, 0x10)), 10, 0, 0), 0, Decoded,
			frag(0, 16, true, false, 0x1234, text(eight, ports(v4(ProtoUDP, Packet{}))))},
		{"no fragment, wrong checksum", LinkRaw, at(udp4, 10, 0xbe, 0xef), 0, Decoded, wantUDP4},
		{"IPv6 first fragment", LinkRaw, ip6Packet(extFragment, x("11 00 0001 deadbeef"), udpDatagram(eight)), 0, Decoded,
			frag(0, 16, true, false, 0xdeadbeef, text(eight, ports(v6(ProtoUDP, Packet{}))))},
		{"IPv6 fragment of a fragment", LinkRaw, ip6Packet(extFragment, x("2c 00 0001 deadbeef"), x("11 00 0001 deadbeef"), udpDatagram(eight)), 0, BadHeader, Packet{}},
		{"IPv6 atomic fragment is none", LinkRaw, ip6Packet(extFragment, x("11 00 0000 deadbeef"), udpDatagram("query")), 0, Decoded, wantUDP6},

		// IPv6.
		{"IPv6 hop-by-hop, routing, destination", LinkRaw, ip6Packet(extHopByHop, x("2b 00 0104 00000000"), x("3c 00 0400 00000000"), x("11 00 0104 00000000"), udpDatagram("query")), 0, Decoded, wantUDP6},
		{"IPv6 AH", LinkRaw, ip6Packet(extAH, x("11 04 0000 00000001 00000001 000000000000000000000000"), udpDatagram("query")), 0, Decoded, wantUDP6},
		{"IPv6 mobility: binding update", LinkRaw, ip6Packet(extMobility, x("3b 01 0500 0000 0000 00000000 00000000")), 0, OtherTransport, text("", v6(59, Packet{}))},
		{"IPv6 forty extension headers", LinkRaw, ip6Packet(extDestination, bytes.Repeat(x("3c 00 0104 00000000"), 39), x("11 00 0104 00000000"), udpDatagram("query")), 0, Decoded, wantUDP6},
		{"IPv6 as many extension headers as are walked past", LinkRaw, ip6Packet(extDestination, bytes.Repeat(x("3c 00 0104 00000000"), maxExtensions-1), x("11 00 0104 00000000"), udpDatagram("query")), 0, Decoded, wantUDP6},
		{"IPv6 one extension header more", LinkRaw, ip6Packet(extDestination, bytes.Repeat(x("3c 00 0104 00000000"), maxExtensions), x("11 00 0104 00000000"), udpDatagram("query")), 0, OtherTransport,
			text(string(join(x("11 00 0104 00000000"), udpDatagram("query"))), v6(extDestination, Packet{}))},
		{"IPv6 extension beyond the packet", LinkRaw, ip6Packet(extDestination, x("11 05 0104 00000000"), udpDatagram("query")), 0, BadLength, Packet{}},
		{"IPv6 extension cut by snaplen", LinkRaw, ip6Packet(extDestination, x("11 01 010c 00000000 00000000 00000000"), udpDatagram("query"))[:44], 69, Truncated, Packet{}},
		{"IPv6 no next header", LinkRaw, ip6Packet(59), 0, OtherTransport, text("", v6(59, Packet{}))},
		{"IPv6 payload length beyond the wire", LinkRaw, at(tcp6, 4, 0, byte(len(tcp6)-39)), 0, BadLength, Packet{}},
		{"IPv6 payload length 0: segmentation offload", LinkRaw, at(tcp6, 4, 0, 0), 0, Decoded, wantTCP6},
		{"IPv6 jumbogram of 70,000 octets", LinkRaw, at(ip6Packet(extHopByHop, x("06 00 c204 00011170"), tcpSegment(ACK, strings.Repeat("j", 100))), 4, 0, 0), 70040, Decoded,
			func() Packet {
				p := text(strings.Repeat("j", 100), ports(v6(ProtoTCP, Packet{Flags: ACK})))
				p.PayloadLen = 70000 - 8 - 20
				return p
			}()},
		{"IPv6 header cut by snaplen", LinkRaw, tcp6[:39], 65, Truncated, Packet{}},
		{"IPv6 with ICMPv4", LinkRaw, ip6Packet(ProtoICMP, x("0800000000010001")), 0, OtherTransport, text("\x08\x00\x00\x00\x00\x01\x00\x01", v6(ProtoICMP, Packet{}))},

		// Transports.
		{"TCP cut by snaplen: length from the IP header", LinkEthernet, etherFrame(0x0800, tcp4)[:56], 59, Decoded,
			func() Packet { p := wantTCP4; p.Payload = []byte("he"); return p }()},
		{"TCP options cut by snaplen", LinkEthernet, etherFrame(0x0800, ip4Packet(ProtoTCP, nil, at(tcpSegment(SYN, "12345678data"), 12, 0x70)))[:56], 66, Decoded,
			func() Packet { p := wantTCP4; p.Payload, p.PayloadLen = nil, 4; return p }()},
		{"TCP header cut by snaplen 40", LinkEthernet, etherFrame(0x0800, tcp4)[:40], 59, Truncated, Packet{}},
		{"TCP header longer than the segment", LinkRaw, at(tcp4, 32, 0xf0), 0, BadLength, Packet{}},
		{"TCP header of 4 words", LinkRaw, at(tcp4, 32, 0x40), 0, BadLength, Packet{}},
		{"TCP segment of 19 octets", LinkRaw, ip4Packet(ProtoTCP, nil, make([]byte, 19)), 0, BadLength, Packet{}},
		{"TCP all flags: Xmas", LinkRaw, ip4Packet(ProtoTCP, nil, tcpSegment(0xff, "")), 0, Decoded, text("", ports(v4(ProtoTCP, Packet{Flags: 0xff})))},
		{"UDP length beyond the packet", LinkRaw, at(udp4, 25, 14), 0, BadLength, Packet{}},
		{"UDP length of 7", LinkRaw, at(udp4, 25, 7), 0, BadLength, Packet{}},
		{"UDP length 0 over IPv4", LinkRaw, at(udp4, 24, 0, 0), 0, BadLength, Packet{}},
		{"UDP length 0 over IPv6: jumbogram", LinkRaw, at(udp6, 44, 0, 0), 0, Decoded, wantUDP6},
		{"UDP length shorter than the packet", LinkRaw, at(udp4, 25, 10), 0, Decoded, text("qu", ports(v4(ProtoUDP, Packet{})))},
		{"UDP of 0 octets", LinkRaw, ip4Packet(ProtoUDP, nil, udpDatagram("")), 0, Decoded, text("", ports(v4(ProtoUDP, Packet{})))},
		{"SCTP", LinkRaw, ip4Packet(ProtoSCTP, nil, be16(38412), be16(38412), make([]byte, 8), []byte("init")), 0, Decoded,
			text("init", v4(ProtoSCTP, Packet{SrcPort: 38412, DstPort: 38412}))},
		{"SCTP scan without a header", LinkRaw, ip4Packet(ProtoSCTP, nil), 0, BadLength, Packet{}},

		// ICMP.
		{"echo request", LinkRaw, ip4Packet(ProtoICMP, nil, x("0800 0000 beef 0001"), []byte("ping")), 0, Decoded, text("ping", v4(ProtoICMP, Packet{ICMPType: 8, ICMPID: 0xbeef}))},
		{"echo reply, IPv6", LinkRaw, ip6Packet(ProtoICMPv6, x("8100 0000 beef 0001")), 0, Decoded, text("", v6(ProtoICMPv6, Packet{ICMPType: 129, ICMPID: 0xbeef}))},
		{"router advertisement has no identifier", LinkRaw, ip6Packet(ProtoICMPv6, x("8600 0000 4000 0708")), 0, Decoded, text("", v6(ProtoICMPv6, Packet{ICMPType: 134}))},
		{"ICMP of 7 octets", LinkRaw, ip4Packet(ProtoICMP, nil, make([]byte, 7)), 0, BadLength, Packet{}},
		{"port unreachable", LinkRaw, ip4Packet(ProtoICMP, nil, x("0303 0000 0000 0000"), quoted), 0, Decoded, unreachable(quoted, quotedWant)},
		{"port unreachable that quotes no ports", LinkRaw, ip4Packet(ProtoICMP, nil, x("0303 0000 0000 0000"), quoted[:23]), 0, Decoded,
			func() Packet {
				p := unreachable(quoted[:23], quotedWant)
				p.HasQuote, p.Quoted = false, Quote{}
				return p
			}()},
		{"unreachable that quotes an echo", LinkRaw, ip4Packet(ProtoICMP, nil, x("0303 0000 0000 0000"), ip4Packet(ProtoICMP, nil, x("0800 0000 beef 0001"))), 0, Decoded,
			unreachable(ip4Packet(ProtoICMP, nil, x("0800 0000 beef 0001")), Quote{Src: v4a, Dst: v4b, Proto: ProtoICMP, ICMPType: 8, ICMPID: 0xbeef})},
		{"unreachable that quotes a later fragment", LinkRaw, ip4Packet(ProtoICMP, nil, x("0303 0000 0000 0000"), ip4Packet(ProtoUDP, fragmented(8, false), []byte(eight))), 0, Decoded,
			unreachable(ip4Packet(ProtoUDP, fragmented(8, false), []byte(eight)), Quote{Src: v4a, Dst: v4b, Proto: ProtoUDP})},
		{"unreachable that quotes garbage", LinkRaw, ip4Packet(ProtoICMP, nil, x("0303 0000 0000 0000"), make([]byte, 28)), 0, Decoded, unreachable(make([]byte, 28), Quote{})},
		{"packet too big, quoting IPv6 with an extension", LinkRaw, ip6Packet(ProtoICMPv6, x("0200 0000 00000500"), ip6Packet(extDestination, x("11 00 0104 00000000"), udpDatagram(""))), 0, Decoded,
			text(string(ip6Packet(extDestination, x("11 00 0104 00000000"), udpDatagram(""))), v6(ProtoICMPv6, Packet{ICMPType: 2, HasQuote: true,
				Quoted: Quote{Src: v6a, Dst: v6b, Proto: ProtoUDP, SrcPort: 5353, DstPort: 53}}))},
	}
}

func TestDecode(t *testing.T) {
	var p Packet
	for _, c := range append(decodeCases(), tunnelCases()...) {
		t.Run(c.name, func(t *testing.T) {
			f := Frame{Data: c.data, Time: 42, WireLen: max(c.wire, len(c.data)), Link: c.link, Interface: 3}
			var d Decoder
			if got := d.Decode(&f, &p); got != c.out {
				t.Fatalf("outcome %v, want %v", got, c.out)
			}
			if d.Counts[c.out] != 1 {
				t.Errorf("counts %v", d.Counts)
			}
			if c.out.HasPacket() || c.out == ARP {
				got, want := p, addressed(c.link, c.want)
				want.Time, want.WireLen, want.Interface = 42, f.WireLen, 3
				if !bytes.Equal(got.Payload, want.Payload) {
					t.Errorf("payload %q, want %q", got.Payload, want.Payload)
				}
				if cap(got.Payload) != len(got.Payload) && len(got.Payload) > 0 {
					t.Errorf("payload has room to append into the frame")
				}
				got.Payload, want.Payload = nil, nil
				if !got.HasQuote {
					got.Quoted = Quote{} // then undefined
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
			}
			if n := testing.AllocsPerRun(10, func() { d.Decode(&f, &p) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for o := Outcome(0); o < NumOutcomes; o++ {
		if o.String() == "" || o.String() == (NumOutcomes).String() {
			t.Errorf("outcome %d has no name", o)
		}
	}
	for k := TunnelKind(0); k < numTunnelKinds; k++ {
		if k.String() == "" || k.String() == numTunnelKinds.String() {
			t.Errorf("tunnel %d has no name", k)
		}
	}
	for l, want := range map[LinkType]string{1: "ETHERNET (1)", 105: "IEEE802_11 (105)", 4711: "unknown link type (4711)"} {
		if got := l.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
