package capture

import "encoding/binary"

const (
	ipv4Header = 20
	ipv6Header = 40

	// maxDatagram is the largest that fragments can make up (RFC 791, RFC 8200).
	maxDatagram = 65535

	// maxExtensions bounds the IPv6 extension headers of one packet to more than
	// 1,500 octets have room for: Linux takes 40 at least. A packet with more is
	// one of the protocol 60 or whichever comes next, without ports.
	maxExtensions = 256
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
func (d *Decoder) ipv4(b []byte, n int, p *Packet) Outcome {
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
		p.setFragment(frag&0x1fff<<3, frag&0x2000 != 0, total-head)
		p.FragmentID = uint32(binary.BigEndian.Uint16(b[4:]))
		if total > maxDatagram-int(p.FragmentOffset) || !checksumOK(b[:head]) {
			p.WrongFragment = true
		}
		return d.fragment(b[9], b[head:end:end], total-head, p)
	}
	return d.payload(b[9], b[head:end:end], total-head, p)
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

// setFragment notes a fragment of n octets at the given offset. One without any
// is as impossible as one that leaves a gap or ends beyond the largest datagram.
func (p *Packet) setFragment(offset uint16, more bool, n int) {
	p.Fragment = true
	p.FragmentOffset, p.FragmentLen = offset, n
	p.MoreFragments = more
	p.WrongFragment = n == 0 || n > maxDatagram-int(offset) || more && n%8 != 0
}

// fragment decodes a fragment, which p is set to be: as much of a header as it
// has, and what other fragments tell.
func (d *Decoder) fragment(proto uint8, b []byte, n int, p *Packet) Outcome {
	o := LaterFragment
	if p.FragmentOffset > 0 {
		p.Proto, p.Payload, p.PayloadLen = proto, b, n
	} else if o = d.payload(proto, b, n, p); !o.HasPacket() {
		return o
	}
	return d.defragment(proto, b, n, o, p)
}

// ipv6 decodes RFC 8200.
func (d *Decoder) ipv6(b []byte, n int, p *Packet) Outcome {
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
	return d.payload(next, b[:end:end], size, p)
}

// payload decodes what follows an IP header: extension headers, then the
// transport.
func (d *Decoder) payload(proto uint8, b []byte, n int, p *Packet) Outcome {
	for range maxExtensions {
		if !isExtension(proto, p.Version) {
			break
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
				if p.Fragment {
					return BadHeader // nobody fragments a fragment
				}
				p.setFragment(v&^7, v&1 != 0, n-size)
				p.FragmentID = binary.BigEndian.Uint32(b[4:])
				return d.fragment(b[0], b[size:], n-size, p)
			}
		}
		proto, b, n = b[0], b[size:], n-size
	}
	return d.transport(proto, b, n, p)
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
