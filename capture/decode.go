package capture

// A Decoder turns frames into packets and counts what became of them. It holds
// no other state, allocates nothing and never panics; the zero value is ready.
// It is not safe for concurrent use.
type Decoder struct {
	Counts [NumOutcomes]uint64 // of frames, by outcome
}

// Decode decodes f into p. Unless the outcome has a packet, p holds no more
// than a part of it.
//
// Lengths are those on the wire: of the IP header where it can be, of the frame
// where it says 0 as with segmentation offload. A length that exceeds what
// holds it is not believed and the packet not counted as one, because its
// receiver drops it too; what merely lies behind the stated end, like Ethernet
// padding, is ignored.
func (d *Decoder) Decode(f *Frame, p *Packet) Outcome {
	*p = Packet{Time: f.Time, WireLen: f.WireLen}
	o := decode(f, p)
	d.Counts[o]++
	return o
}

func decode(f *Frame, p *Packet) Outcome {
	b := f.Data[:len(f.Data):len(f.Data)]
	n := max(f.WireLen, len(b))
	switch f.Link {
	case LinkEthernet:
		return ethernet(b, n, p)
	case LinkSLL:
		return sll(14, 16, b, n, p)
	case LinkSLL2:
		return sll(0, 20, b, n, p)
	case LinkRaw:
		return ip(b, n, p)
	case LinkIPv4:
		return ipv4(b, n, p)
	case LinkIPv6:
		return ipv6(b, n, p)
	case LinkNull, LinkLoop:
		return loopback(b, n, p)
	}
	return UnsupportedLink
}

func (o Outcome) String() string {
	if o >= NumOutcomes {
		return "unknown outcome"
	}
	return [NumOutcomes]string{
		Decoded:         "decoded",
		LaterFragment:   "later fragment",
		OtherTransport:  "other transport",
		ARP:             "ARP",
		NotIP:           "not IP",
		Truncated:       "truncated",
		BadLength:       "bad length",
		BadHeader:       "bad header",
		UnsupportedLink: "unsupported link type",
	}[o]
}
