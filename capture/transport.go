package capture

import "encoding/binary"

const (
	tcpHeader  = 20
	udpHeader  = 8
	sctpHeader = 12
	icmpHeader = 8
)

// transport decodes the payload of an IP packet, and of the packets inside if it
// is a tunnel.
func (d *Decoder) transport(proto uint8, b []byte, n int, p *Packet) Outcome {
	p.Proto, p.Payload, p.PayloadLen = proto, b, n
	switch proto {
	case ProtoTCP:
		return tcp(b, n, p)
	case ProtoUDP:
		o := udp(b, n, p)
		if o == Decoded && isTunnelPort(p.DstPort) {
			if in := d.peel(p); in != NotIP {
				return in
			}
		}
		return o
	case ProtoSCTP:
		return sctp(b, n, p)
	case ProtoICMP:
		if p.Version == 4 {
			return icmp(b, n, p)
		}
	case ProtoICMPv6:
		if p.Version == 6 {
			return icmp(b, n, p)
		}
	case protoIPIP, proto6in4, protoGRE:
		if in := d.peel(p); in != NotIP {
			return in
		}
	}
	return OtherTransport
}

// headless is the outcome of a transport header that does not fit: a first
// fragment may be smaller than one (RFC 1858), and is then like a later one. The
// ports lead the headers of all that are longer than 8 octets, the least that a
// fragment has.
func headless(b []byte, n, need int, p *Packet) Outcome {
	if n >= need || !p.Fragment {
		return short(n, need)
	}
	if len(b) >= 4 && p.Proto != ProtoICMP && p.Proto != ProtoICMPv6 {
		p.SrcPort = binary.BigEndian.Uint16(b)
		p.DstPort = binary.BigEndian.Uint16(b[2:])
	}
	return LaterFragment
}

// tcp decodes RFC 9293.
func tcp(b []byte, n int, p *Packet) Outcome {
	if len(b) < tcpHeader {
		return headless(b, n, tcpHeader, p)
	}
	head := int(b[12]>>4) * 4
	if head < tcpHeader || head > n && !p.Fragment {
		return BadLength
	}
	p.SrcPort = binary.BigEndian.Uint16(b)
	p.DstPort = binary.BigEndian.Uint16(b[2:])
	p.Seq = binary.BigEndian.Uint32(b[4:])
	p.Ack = binary.BigEndian.Uint32(b[8:])
	p.Flags = b[13]
	p.Window = binary.BigEndian.Uint16(b[14:])
	p.Payload = b[min(head, len(b)):]
	p.PayloadLen = max(n-head, 0)
	return Decoded
}

// udp decodes RFC 768.
func udp(b []byte, n int, p *Packet) Outcome {
	if len(b) < udpHeader {
		return headless(b, n, udpHeader, p)
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	if size == 0 && (p.Version == 6 || n > maxDatagram) {
		size = n // jumbogram (RFC 2675) or segmentation offload
	}
	switch {
	case size < udpHeader:
		return BadLength
	case size <= n:
		n = size
	case !p.Fragment: // of which it states the whole
		return BadLength
	}
	end := min(len(b), n)
	p.SrcPort = binary.BigEndian.Uint16(b)
	p.DstPort = binary.BigEndian.Uint16(b[2:])
	p.Payload = b[udpHeader:end:end]
	p.PayloadLen = n - udpHeader
	return Decoded
}

// sctp decodes the common header of RFC 9260; the payload is the chunks.
func sctp(b []byte, n int, p *Packet) Outcome {
	if len(b) < sctpHeader {
		return headless(b, n, sctpHeader, p)
	}
	p.SrcPort = binary.BigEndian.Uint16(b)
	p.DstPort = binary.BigEndian.Uint16(b[2:])
	p.Payload = b[sctpHeader:]
	p.PayloadLen = n - sctpHeader
	return Decoded
}
