package capture

import "encoding/binary"

const (
	ipv4Header = 20
	ipv6Header = 40

	// maxDatagram is the largest that fragments can make up (RFC 791, RFC 8200).
	maxDatagram = 65535

	// maxExtensions bounds the IPv6 extension headers of one packet. RFC 8200
	// has seven at most in the order it recommends.
	maxExtensions = 8
)

// IPv6 extension headers (IANA) that are walked past.
const (
	extHopByHop    = 0
	extRouting     = 43
	extFragment    = 44
	extAH          = 51 // with IPv4 too
	extDestination = 60
	extMobility    = 135
)

// ipv4 decodes RFC 791.
func ipv4(b []byte, n int, p *Packet) Outcome {
	if len(b) < ipv4Header {
		return short(n, ipv4Header)
	}
	if b[0]>>4 != 4 {
		return BadHeader
	}
	head := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 {
		total = n // segmentation offload
	}
	if head < ipv4Header || total < head || total > n {
		return BadLength
	}
	if len(b) < head {
		return Truncated
	}
	end := min(len(b), total)
	p.Version = 4
	p.TTL = b[8]
	p.Src.setIPv4(b[12:])
	p.Dst.setIPv4(b[16:])
	if frag := binary.BigEndian.Uint16(b[6:]); frag&0x3fff != 0 {
		fragment(frag&0x1fff<<3, frag&0x2000 != 0, total-head, p)
		p.FragmentID = uint32(binary.BigEndian.Uint16(b[4:]))
		if int(p.FragmentOffset)+total > maxDatagram || !checksumOK(b[:head]) {
			p.WrongFragment = true
		}
	}
	return payload(b[9], b[head:end:end], total-head, p)
}

// setIPv4 sets a, the zero Addr, to the IPv4 address at the start of b. Writing
// in place spares the stalls of building an Addr by parts and then moving it.
func (a *Addr) setIPv4(b []byte) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], b[:4])
}

// checksumOK checks an IPv4 header (RFC 1071). A checksum of 0 is one that the
// sending host left to its network card.
func checksumOK(h []byte) bool {
	if h[10] == 0 && h[11] == 0 {
		return true
	}
	var sum uint32
	for i := 0; i+1 < len(h); i += 2 {
		sum += uint32(h[i])<<8 | uint32(h[i+1])
	}
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return sum == 0xffff
}

// fragment notes a fragment of n octets at the given offset.
func fragment(offset uint16, more bool, n int, p *Packet) {
	p.Fragment = true
	p.FragmentOffset, p.FragmentLen = offset, n
	p.FragmentLen = n
	p.MoreFragments = more
	p.WrongFragment = int(offset)+n > maxDatagram || more && n%8 != 0
}

// ipv6 decodes RFC 8200.
func ipv6(b []byte, n int, p *Packet) Outcome {
	if len(b) < ipv6Header {
		return short(n, ipv6Header)
	}
	if b[0]>>4 != 6 {
		return BadHeader
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	next := b[6]
	p.Version = 6
	p.TTL = b[7]
	p.Src, p.Dst = Addr(b[8:24]), Addr(b[24:40])
	b, n = b[ipv6Header:], n-ipv6Header
	if size == 0 {
		size = n // jumbogram (RFC 2675) or segmentation offload
	}
	if size > n {
		return BadLength
	}
	end := min(len(b), size)
	return payload(next, b[:end:end], size, p)
}

// payload decodes what follows an IP header: extension headers, then the
// transport.
func payload(proto uint8, b []byte, n int, p *Packet) Outcome {
	for range maxExtensions + 1 {
		if p.FragmentOffset > 0 {
			p.Proto, p.Payload, p.PayloadLen = proto, b, n
			return LaterFragment
		}
		if !isExtension(proto, p.Version) {
			return transport(proto, b, n, p)
		}
		if len(b) < 8 {
			return short(n, 8)
		}
		size := extensionLen(proto, b[1])
		if len(b) < size {
			return short(n, size)
		}
		if proto == extFragment {
			// With neither an offset nor more to come it is atomic, RFC 6946:
			// not a fragment.
			if v := binary.BigEndian.Uint16(b[2:]); v&^6 != 0 {
				fragment(v&^7, v&1 != 0, n-size, p)
				p.FragmentID = binary.BigEndian.Uint32(b[4:])
			}
		}
		proto, b, n = b[0], b[size:], n-size
	}
	return BadHeader
}

func isExtension(proto, version uint8) bool {
	switch proto {
	case extHopByHop, extRouting, extFragment, extDestination, extMobility:
		return version == 6
	case extAH:
		return true
	}
	return false
}

// extensionLen returns the octets of the extension header that states size.
func extensionLen(proto, size uint8) int {
	switch proto {
	case extFragment:
		return 8
	case extAH:
		return (int(size) + 2) * 4 // RFC 4302
	}
	return (int(size) + 1) * 8
}
