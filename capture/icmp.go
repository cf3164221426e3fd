package capture

import "encoding/binary"

// icmp decodes RFC 792 and RFC 4443, whose headers are laid out alike. The
// version of p tells them apart.
func icmp(b []byte, n int, p *Packet) Outcome {
	if len(b) < icmpHeader {
		return headless(b, n, icmpHeader, p)
	}
	p.ICMPType, p.ICMPCode = b[0], b[1]
	p.Payload = b[icmpHeader:]
	p.PayloadLen = n - icmpHeader
	switch {
	case isEcho(p.Version, p.ICMPType):
		p.ICMPID = binary.BigEndian.Uint16(b[4:])
	case isICMPError(p.Version, p.ICMPType):
		p.HasQuote = quote(p.Payload, p.Version, &p.Quoted)
	}
	return Decoded
}

func isEcho(version, typ uint8) bool {
	if version == 4 {
		return typ == 0 || typ == 8
	}
	return typ == 128 || typ == 129
}

// isICMPError reports whether a message of this type quotes the packet that
// caused it: unreachable, source quench, redirect, time exceeded, parameter
// problem; in ICMPv6, too big in the place of quench, and no redirect.
func isICMPError(version, typ uint8) bool {
	if version == 4 {
		return typ >= 3 && typ <= 5 || typ == 11 || typ == 12
	}
	return typ >= 1 && typ <= 4
}

// quote decodes the start of a packet that an ICMP error of the same version
// carries, and reports whether it was enough to tell whose error it is. Lengths
// in it are not looked at: it is cut by design, and routers change them.
func quote(b []byte, version uint8, q *Quote) bool {
	proto, b, ok := quotedIP(b, version, q)
	if !ok {
		return false
	}
	q.Proto = proto
	switch {
	case b == nil: // a later fragment
	case proto == ProtoTCP || proto == ProtoUDP || proto == ProtoSCTP:
		if len(b) < 4 {
			return false
		}
		q.SrcPort = binary.BigEndian.Uint16(b)
		q.DstPort = binary.BigEndian.Uint16(b[2:])
	case proto == ProtoICMP && version == 4 || proto == ProtoICMPv6 && version == 6:
		if len(b) < 6 {
			return false
		}
		q.ICMPType = b[0]
		if isEcho(version, b[0]) {
			q.ICMPID = binary.BigEndian.Uint16(b[4:])
		}
	}
	return true
}

// quotedIP fills in the addresses and returns the transport and its header, nil
// for a later fragment.
func quotedIP(b []byte, version uint8, q *Quote) (proto uint8, header []byte, ok bool) {
	if len(b) < ipv4Header || b[0]>>4 != version {
		return 0, nil, false
	}
	if version == 4 {
		head := int(b[0]&0x0f) * 4
		if head < ipv4Header || len(b) < head {
			return 0, nil, false
		}
		q.Src.setIPv4(b[12:])
		q.Dst.setIPv4(b[16:])
		if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return b[9], nil, true
		}
		return b[9], b[head:], true
	}
	if len(b) < ipv6Header {
		return 0, nil, false
	}
	q.Src, q.Dst = Addr(b[8:24]), Addr(b[24:40])
	proto, b = b[6], b[ipv6Header:]
	for range maxExtensions + 1 {
		if !isExtension(proto, version) {
			return proto, b, true
		}
		if len(b) < 8 {
			return 0, nil, false
		}
		size := extensionLen(proto, b[1])
		if len(b) < size {
			return 0, nil, false
		}
		later := proto == extFragment && binary.BigEndian.Uint16(b[2:])&^7 != 0
		proto, b = b[0], b[size:]
		if later {
			return proto, nil, true
		}
	}
	return 0, nil, false
}
