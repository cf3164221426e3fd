package capture

// A Decoder turns frames into packets and counts what became of them. It peels
// tunnels and remembers fragments; the first fragment allocates the 1.4 MiB for
// that, nothing else allocates. It never panics; the zero value is ready. It is
// not safe for concurrent use, and not to be copied once used.
type Decoder struct {
	Counts  [NumOutcomes]uint64 // of frames, by outcome
	TooDeep uint64              // frames in more than 4 nested tunnels
	Mirrors Mirrors             // of what Read read

	fragments *defragmenter // nil until the first fragment
	message   ARPMessage    // Packet.ARP of the last frame that had one
	// tunnels that carried a packet: by the highest bits of tunnelTag its last
	tunnels [1 << tunnelBits]uint32
}

// Decode decodes f into p. Unless the outcome has a packet, p holds no more
// than a part of it.
//
// Lengths are those on the wire: of the IP header where it can be, of the frame
// where it says 0 as with segmentation offload. A length that exceeds what
// holds it is not believed and the packet not counted as one, because its
// receiver drops it too; what merely lies behind the stated end, like Ethernet
// padding, is ignored.
//
// Tunnels are peeled: p is the innermost packet, and holds what identifies the
// tunnel. Where a tunnel's header lies, or no IP packet is inside that can be
// decoded, p is the packet of the tunnel's own flow. So it is with an orphan
// fragment in a tunnel that carried nothing else before.
//
// Each fragment is a packet; the later ones have the ports of the first when it
// came before them, and are orphans otherwise: no packets, but counted with the
// first. The one that completes its datagram has the whole payload, or is the
// packet inside if that is a tunnel's.
func (d *Decoder) Decode(f *Frame, p *Packet) Outcome {
	*p = Packet{Time: f.Time, WireLen: f.WireLen, Interface: f.Interface}
	o := d.decode(f, p)
	d.Counts[o]++
	return o
}

func (d *Decoder) decode(f *Frame, p *Packet) Outcome {
	b := f.Data[:len(f.Data):len(f.Data)]
	n := max(f.WireLen, len(b))
	switch f.Link {
	case LinkEthernet:
		if len(b) >= 12 {
			copy(p.DstMAC[:], b[:6])
			copy(p.SrcMAC[:], b[6:12])
		}
		return d.ethernet(b, n, p)
	case LinkSLL:
		return d.sll(14, 5, 16, b, n, p)
	case LinkSLL2:
		return d.sll(0, 11, 20, b, n, p)
	case LinkRaw:
		return d.ip(b, n, p)
	case LinkIPv4:
		return d.ipv4(b, n, p)
	case LinkIPv6:
		return d.ipv6(b, n, p)
	case LinkNull, LinkLoop:
		return d.loopback(b, n, p)
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
		OrphanFragment:  "orphan fragment",
		ARP:             "ARP",
		NotIP:           "not IP",
		Truncated:       "truncated",
		BadLength:       "bad length",
		BadHeader:       "bad header",
		UnsupportedLink: "unsupported link type",
		Copy:            "copy",
	}[o]
}
