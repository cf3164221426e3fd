package capture

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func udpTo(port int, payload ...[]byte) []byte {
	b := join(payload...)
	return join(be16(49152), be16(port), be16(8+len(b)), x("0000"), b)
}

// gtpPDU has the flags, then what they announce, then the inner packet.
func gtpPDU(flags int, teid uint32, rest ...[]byte) []byte {
	b := join(rest...)
	return join([]byte{byte(flags), 255}, be16(len(b)), be32(teid), b)
}

func vxlanFrame(vni uint32, frame []byte) []byte { return join(x("08000000"), be32(vni<<8), frame) }

func greFrame(flags, typ int, rest ...[]byte) []byte {
	return join(be16(flags), be16(typ), join(rest...))
}

// outer packets go from 192.0.2.1 to 192.0.2.2, or from 2001:db8:ff::1 to ::2.
var (
	outer4a, outer4b = AddrFrom(netip.MustParseAddr("192.0.2.1")), AddrFrom(netip.MustParseAddr("192.0.2.2"))
	outer6a, outer6b = AddrFrom(netip.MustParseAddr("2001:db8:ff::1")), AddrFrom(netip.MustParseAddr("2001:db8:ff::2"))
)

func outer4(proto uint8, payload ...[]byte) []byte {
	return ip4Packet(proto, func(h []byte) { copy(h[12:], x("c0000201 c0000202")) }, payload...)
}

func outer6(next uint8, payload ...[]byte) []byte {
	b := ip6Packet(next, payload...)
	copy(b[8:24], outer6a[:])
	copy(b[24:40], outer6b[:])
	return b
}

func through(kind TunnelKind, id uint32, p Packet) Packet {
	p.Tunnel, p.TunnelID, p.OuterSrc, p.OuterDst = kind, id, outer4a, outer4b
	p.Tunnels++
	return p
}

// nested is a TCP packet in n VXLANs, the outermost of VNI n.
func nested(n int, in []byte) []byte {
	for vni := range n {
		in = outer4(ProtoUDP, udpTo(portVXLAN, vxlanFrame(uint32(vni+1), etherFrame(0x0800, in))))
	}
	return in
}

func tunnelCases() []decodeCase {
	tcp4 := ip4Packet(ProtoTCP, nil, tcpSegment(SYN, "hello"))
	udp6 := ip6Packet(ProtoUDP, udpDatagram("query"))
	frame4, frame6 := etherFrame(0x0800, tcp4), etherFrame(0x86dd, udp6)
	in4 := text("hello", ports(v4(ProtoTCP, Packet{Flags: SYN})))
	in6 := text("query", ports(v6(ProtoUDP, Packet{})))
	deeper := func(n uint8, p Packet) Packet { p.Tunnels = n; return p }
	// The outer packet of a tunnel that is not peeled.
	udp := func(port uint16, payload []byte) Packet {
		p := text(string(payload), v4(ProtoUDP, Packet{SrcPort: 49152, DstPort: port}))
		p.Src, p.Dst = outer4a, outer4b
		return p
	}
	other := func(proto uint8, payload []byte) Packet {
		p := text(string(payload), v4(proto, Packet{}))
		p.Src, p.Dst = outer4a, outer4b
		return p
	}
	var cases []decodeCase
	peeled := func(name string, data []byte, want Packet) {
		cases = append(cases, decodeCase{name, LinkRaw, data, 0, Decoded, want})
	}
	kept := func(name string, port int, payload []byte) {
		cases = append(cases, decodeCase{name + " is kept", LinkRaw, outer4(ProtoUDP, udpTo(port, payload)), 0, Decoded, udp(uint16(port), payload)})
	}
	keptIP := func(name string, proto uint8, payload []byte) {
		cases = append(cases, decodeCase{name + " is kept", LinkRaw, outer4(proto, payload), 0, OtherTransport, other(proto, payload)})
	}
	gtp := func(pdu []byte) []byte { return outer4(ProtoUDP, udpTo(portGTPU, pdu)) }

	peeled("GTP-U", gtp(gtpPDU(0x30, 0xcafe, tcp4)), through(TunnelGTPU, 0xcafe, in4))
	peeled("GTP-U, IPv6", gtp(gtpPDU(0x30, 0xcafe, udp6)), through(TunnelGTPU, 0xcafe, in6))
	peeled("GTP-U, sequence number", gtp(gtpPDU(0x32, 7, x("0001 00 00"), tcp4)), through(TunnelGTPU, 7, in4))
	peeled("GTP-U, N-PDU number, next extension not valid", gtp(gtpPDU(0x31, 7, x("0000 01 85"), tcp4)), through(TunnelGTPU, 7, in4))
	peeled("GTP-U, PDU session container", gtp(gtpPDU(0x34, 7, x("0000 00 85 01 100900"), tcp4)), through(TunnelGTPU, 7, in4))
	peeled("GTP-U, three chained extensions", gtp(gtpPDU(0x36, 7, x("0001 00 40 01 1234 c0 01 5678 85 02 1009000000 00 00"), tcp4)), through(TunnelGTPU, 7, in4))
	peeled("GTP-U, extension flag without one", gtp(gtpPDU(0x34, 7, x("0000 00 00"), tcp4)), through(TunnelGTPU, 7, in4))
	peeled("GTP-U over IPv6", outer6(ProtoUDP, udpTo(portGTPU, gtpPDU(0x30, 7, tcp4))),
		func() Packet { p := through(TunnelGTPU, 7, in4); p.OuterSrc, p.OuterDst = outer6a, outer6b; return p }())
	cases = append(cases, decodeCase{"GTP-U cut by snaplen behind the inner header", LinkRaw, gtp(gtpPDU(0x30, 7, tcp4))[:28+8+20+22], 28 + 8 + len(tcp4), Decoded,
		func() Packet { p := through(TunnelGTPU, 7, in4); p.Payload = []byte("he"); return p }()})
	kept("GTP-U echo", portGTPU, x("3201 0004 00000000 0001 0000"))
	kept("GTP-U error indication", portGTPU, x("321a 0010 00000000 0001 0000 10 00000007 85 0004 c0000202"))
	kept("GTP-U end marker", portGTPU, x("30fe 0000 00000007"))
	kept("GTP-U end marker that carries a packet", portGTPU, at(gtpPDU(0x30, 7, tcp4), 1, 254))
	kept("GTP-U version 2", portGTPU, at(gtpPDU(0x30, 7, tcp4), 0, 0x50))
	kept("GTP'", portGTPU, at(gtpPDU(0x30, 7, tcp4), 0, 0x20))
	kept("GTP-U whose length lies", portGTPU, at(gtpPDU(0x30, 7, tcp4), 3, byte(len(tcp4)+1)))
	kept("GTP-U whose length ends before the inner packet does", portGTPU, at(gtpPDU(0x30, 7, tcp4), 3, byte(len(tcp4)-1)))
	kept("GTP-U without a packet", portGTPU, gtpPDU(0x30, 7))
	kept("GTP-U with PPP", portGTPU, gtpPDU(0x30, 7, x("ff030021"), tcp4))
	kept("GTP-U header cut", portGTPU, x("30ff00"))
	kept("GTP-U optional fields cut", portGTPU, gtpPDU(0x32, 7, x("0001")))
	kept("GTP-U extension of length 0", portGTPU, gtpPDU(0x34, 7, x("0000 00 85 00 100900"), tcp4))
	kept("GTP-U extension beyond the message", portGTPU, gtpPDU(0x34, 7, x("0000 00 85 20 100900"), tcp4))
	kept("GTP-U, nine extensions", portGTPU, gtpPDU(0x34, 7, x("0000 00 85"), bytesOf(8, x("01 1009 85")), x("01 1009 00"), tcp4))
	kept("GTP-U whose inner length lies", portGTPU, gtpPDU(0x30, 7, at(tcp4, 3, byte(len(tcp4)+1))))

	peeled("VXLAN", outer4(ProtoUDP, udpTo(portVXLAN, vxlanFrame(42, frame4))), through(TunnelVXLAN, 42, in4))
	peeled("VXLAN, IPv6", outer4(ProtoUDP, udpTo(portVXLAN, vxlanFrame(42, frame6))), through(TunnelVXLAN, 42, in6))
	peeled("VXLAN with a group policy", outer4(ProtoUDP, udpTo(portVXLAN, at(vxlanFrame(42, frame4), 0, 0x88, 0, 1))), through(TunnelVXLAN, 42, in4))
	peeled("VXLAN, tagged inside: not the frame's VLAN", outer4(ProtoUDP, udpTo(portVXLAN, vxlanFrame(42, etherFrame(0x8100, vlanTag(7, 0x0800, tcp4))))), through(TunnelVXLAN, 42, in4))
	kept("VXLAN without a VNI", portVXLAN, at(vxlanFrame(42, frame4), 0, 0))
	kept("VXLAN with ARP", portVXLAN, vxlanFrame(42, etherFrame(0x0806, make([]byte, 28))))
	kept("VXLAN cut", portVXLAN, x("0800000000"))
	kept("VXLAN whose inner length lies", portVXLAN, vxlanFrame(42, etherFrame(0x0800, at(tcp4, 3, 255))))

	geneve := func(options, typ int, rest ...[]byte) []byte {
		return join([]byte{byte(options), 0}, be16(typ), be32(42<<8), join(rest...))
	}
	peeled("Geneve", outer4(ProtoUDP, udpTo(portGeneve, geneve(0, 0x6558, frame4))), through(TunnelGeneve, 42, in4))
	peeled("Geneve, options", outer4(ProtoUDP, udpTo(portGeneve, geneve(3, 0x6558, x("0102 80 01 deadbeef 0102 00 00"), frame6))), through(TunnelGeneve, 42, in6))
	peeled("Geneve, IPv4 without Ethernet", outer4(ProtoUDP, udpTo(portGeneve, geneve(0, 0x0800, tcp4))), through(TunnelGeneve, 42, in4))
	kept("Geneve version 1", portGeneve, geneve(0x40, 0x6558, frame4))
	kept("Geneve control packet", portGeneve, at(geneve(0, 0x6558, frame4), 1, 0x80))
	kept("Geneve whose options lie", portGeneve, geneve(0x3f, 0x6558, frame4))
	kept("Geneve with something else", portGeneve, geneve(0, 0x88cc, frame4))

	peeled("GRE", outer4(protoGRE, greFrame(0, 0x0800, tcp4)), through(TunnelGRE, 0, in4))
	peeled("GRE with a key", outer4(protoGRE, greFrame(0x2000, 0x86dd, be32(99), udp6)), through(TunnelGRE, 99, in6))
	peeled("GRE with checksum, key and sequence", outer4(protoGRE, greFrame(0xb000, 0x0800, x("dead0000"), be32(99), be32(1), tcp4)), through(TunnelGRE, 99, in4))
	peeled("GRE, transparent Ethernet: NVGRE", outer4(protoGRE, greFrame(0x2000, 0x6558, be32(42<<8), frame4)), through(TunnelGRE, 42<<8, in4))
	peeled("GRE, MPLS", outer4(protoGRE, greFrame(0, 0x8847, x("00064140"), tcp4)), through(TunnelGRE, 0, in4))
	peeled("ERSPAN type I", outer4(protoGRE, greFrame(0, 0x88be, frame4)), through(TunnelERSPAN, 0, in4))
	peeled("ERSPAN type II", outer4(protoGRE, greFrame(0x1000, 0x88be, be32(1), x("1007 6063 00000001"), frame4)), through(TunnelERSPAN, 99, in4))
	peeled("ERSPAN type III", outer4(protoGRE, greFrame(0x1000, 0x22eb, be32(1), x("2007 6063 00000001 0000 0000"), frame4)), through(TunnelERSPAN, 99, in4))
	peeled("ERSPAN type III with a subheader", outer4(protoGRE, greFrame(0x1000, 0x22eb, be32(1), x("2007 6063 00000001 0000 0001"), make([]byte, 8), frame4)), through(TunnelERSPAN, 99, in4))
	keptIP("GRE version 1: PPTP", protoGRE, x("3001 880b 0004 0001 00000001 ff030021"))
	keptIP("GRE with source routes", protoGRE, greFrame(0x4000, 0x0800, make([]byte, 8), tcp4))
	keptIP("GRE keepalive", protoGRE, greFrame(0, 0))
	keptIP("GRE cut", protoGRE, x("2000"))
	keptIP("GRE key cut", protoGRE, greFrame(0x2000, 0x0800, x("0000")))
	keptIP("GRE sequence cut", protoGRE, greFrame(0x3000, 0x0800, be32(1)))
	keptIP("GRE with IPv6 said to be IPv4", protoGRE, greFrame(0, 0x0800, udp6))
	keptIP("ERSPAN type II of version 2", protoGRE, greFrame(0x1000, 0x88be, be32(1), x("2007 6063 00000001"), frame4))
	keptIP("ERSPAN type III with no Ethernet", protoGRE, greFrame(0x1000, 0x22eb, be32(1), x("2007 6063 00000001 0000 0800"), tcp4))
	keptIP("ERSPAN type III cut", protoGRE, greFrame(0x1000, 0x22eb, be32(1), x("2007 6063 00000001 0000 0001")))

	peeled("IP-in-IP", outer4(protoIPIP, tcp4), through(TunnelIPIP, 0, in4))
	peeled("6in4", outer4(proto6in4, udp6), through(Tunnel6in4, 0, in6))
	peeled("4in6 behind an encapsulation limit", outer6(extDestination, x("04 00 0401 04 010100")[:8], tcp4),
		func() Packet { p := through(TunnelIPIP, 0, in4); p.OuterSrc, p.OuterDst = outer6a, outer6b; return p }())
	keptIP("IP-in-IP with IPv6", protoIPIP, udp6)
	keptIP("IP-in-IP of nothing", protoIPIP, nil)
	keptIP("6in4 whose length lies", proto6in4, at(udp6, 5, 14))

	peeled("GRE without a key in GTP-U: the TEID stays", gtp(gtpPDU(0x30, 7, ip4Packet(protoGRE, nil, greFrame(0, 0x0800, tcp4)))), deeper(2, through(TunnelGTPU, 7, in4)))
	peeled("VXLAN in 6in4", outer6(proto6in4, outer6(ProtoUDP, udpTo(portVXLAN, vxlanFrame(5, frame4)))),
		func() Packet {
			p := deeper(2, through(TunnelVXLAN, 5, in4))
			p.OuterSrc, p.OuterDst = outer6a, outer6b
			return p
		}())
	peeled("four VXLANs, the innermost counts", nested(4, tcp4), deeper(4, through(TunnelVXLAN, 1, in4)))
	five := vxlanFrame(1, frame4)
	peeled("five VXLANs: the fifth is kept", nested(5, tcp4), deeper(4, through(TunnelVXLAN, 2, udp(portVXLAN, five))))
	peeled("a lie in the second tunnel keeps it", nested(1, outer4(ProtoUDP, udpTo(portGTPU, []byte("lie")))), through(TunnelVXLAN, 1, udp(portGTPU, []byte("lie"))))

	return append(cases, []decodeCase{
		{"MPLS, two labels", LinkEthernet, etherFrame(0x8847, x("00064040 00064140"), tcp4), 0, Decoded, in4},
		{"MPLS upstream, IPv6", LinkEthernet, etherFrame(0x8848, x("00002140"), udp6), 0, Decoded, in6},
		{"MPLS pseudowire", LinkEthernet, etherFrame(0x8847, x("00064140 00000000"), frame4), 0, NotIP, Packet{}},
		{"MPLS, eight labels", LinkEthernet, etherFrame(0x8847, bytesOf(7, x("00064040")), x("00064140"), tcp4), 0, Decoded, in4},
		{"MPLS, nine labels", LinkEthernet, etherFrame(0x8847, bytesOf(8, x("00064040")), x("00064140"), tcp4), 0, BadHeader, Packet{}},
		{"MPLS without an end", LinkEthernet, etherFrame(0x8847, x("00064040")), 0, BadLength, Packet{}},
		{"MPLS cut", LinkEthernet, etherFrame(0x8847, x("0006")), 60, Truncated, Packet{}},
		{"PPPoE", LinkEthernet, etherFrame(0x8864, x("1100 0001"), be16(2+len(tcp4)), x("0021"), tcp4, make([]byte, 3)), 0, Decoded, in4},
		{"PPPoE, IPv6 on a VLAN", LinkEthernet, etherFrame(0x8100, vlanTag(7, 0x8864, x("1100 0001"), be16(2+len(udp6)), x("0057"), udp6)), 0, Decoded,
			func() Packet { p := in6; p.VLAN = 7; return p }()},
		{"PPPoE, LCP", LinkEthernet, etherFrame(0x8864, x("1100 0001 000a c021 01010008 0104 05d4"), make([]byte, 30)), 0, NotIP, Packet{}},
		{"PPPoE discovery", LinkEthernet, etherFrame(0x8863, x("1109 0000 0004 0101 0000")), 0, NotIP, Packet{}},
		{"PPPoE whose length lies", LinkEthernet, etherFrame(0x8864, x("1100 0001"), be16(3+len(tcp4)), x("0021"), tcp4), 0, BadLength, Packet{}},
		{"PPPoE of length 1", LinkEthernet, etherFrame(0x8864, x("1100 0001 0001 0021"), tcp4), 0, BadLength, Packet{}},
		{"PPPoE that ends before its packet", LinkEthernet, etherFrame(0x8864, x("1100 0001"), be16(1+len(tcp4)), x("0021"), tcp4), 0, BadLength, Packet{}},
		{"PPPoE of version 2", LinkEthernet, etherFrame(0x8864, x("2100 0001"), be16(2+len(tcp4)), x("0021"), tcp4), 0, BadHeader, Packet{}},
		{"PPPoE cut", LinkEthernet, etherFrame(0x8864, x("1100 0001")), 60, Truncated, Packet{}},
	}...)
}

func bytesOf(n int, b []byte) (all []byte) {
	for range n {
		all = append(all, b...)
	}
	return all
}

func TestTooDeep(t *testing.T) {
	var d Decoder
	var p Packet
	tcp4 := ip4Packet(ProtoTCP, nil, tcpSegment(SYN, ""))
	for i, n := range []int{4, 5, 9} { // of which the last two are too deep
		b := nested(n, tcp4)
		d.Decode(&Frame{Data: b, WireLen: len(b), Link: LinkRaw}, &p)
		if p.Tunnels != maxTunnels || d.TooDeep != uint64(i) {
			t.Errorf("%d tunnels: %d peeled, %d frames too deep", n, p.Tunnels, d.TooDeep)
		}
	}
}

// TestHardwareAddresses checks that a packet has the addresses of its own frame, not of
// one that a tunnel carries, nor of an earlier fragment.
func TestHardwareAddresses(t *testing.T) {
	inner := func(typ int, payload []byte) []byte {
		return at(etherFrame(typ, payload), 0, 0xee, 1, 2, 3, 4, 5, 0xee, 6, 7, 8, 9, 10)
	}
	carried := udpTo(portVXLAN, vxlanFrame(42, inner(0x0800, ip4Packet(ProtoTCP, nil, tcpSegment(SYN, "hello")))))
	arp := x("0001 0800 06 04 0001 020000000002 0a000001 000000000000 0a000002")
	first := at(etherFrame(0x0800, frag4More(7, 0, 24, true, ProtoUDP, carried)), 0, 0xdd)
	last := etherFrame(0x0800, frag4More(7, 24, len(carried), false, ProtoUDP, carried))
	for _, c := range []struct {
		name    string
		frames  [][]byte
		tunnels uint8
	}{
		{"in VXLAN", [][]byte{etherFrame(0x0800, outer4(ProtoUDP, carried))}, 1},
		{"in fragments of VXLAN", [][]byte{first, last}, 1},
		{"ARP in VXLAN is the tunnel's", [][]byte{etherFrame(0x0800, outer4(ProtoUDP, udpTo(portVXLAN, vxlanFrame(42, inner(0x0806, arp)))))}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d Decoder
			var p Packet
			for _, b := range c.frames {
				d.Decode(&Frame{Data: b, WireLen: len(b), Link: LinkEthernet, Interface: 3}, &p)
			}
			if p.Tunnels != c.tunnels || p.Interface != 3 || p.ARP != nil {
				t.Errorf("%d tunnels, interface %d, %+v", p.Tunnels, p.Interface, p.ARP)
			}
			if p.SrcMAC != (MAC{2, 0, 0, 0, 0, 2}) || p.DstMAC != (MAC{2, 0, 0, 0, 0, 1}) {
				t.Errorf("from %v to %v", p.SrcMAC, p.DstMAC)
			}
		})
	}
}
