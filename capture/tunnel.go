package capture

import "encoding/binary"

// TunnelKind tells by which tunnel a packet came.
type TunnelKind uint8

const (
	TunnelNone   TunnelKind = iota
	TunnelGTPU              // 3GPP TS 29.281, version 1; TunnelID is the TEID
	TunnelGRE               // RFC 2784 and RFC 2890; the key, 0 without one
	TunnelERSPAN            // mirrored frames in GRE, draft-foschiano-erspan; the session
	TunnelIPIP              // RFC 2003 and RFC 2473; 0
	Tunnel6in4              // RFC 4213 and RFC 2473; 0
	TunnelVXLAN             // RFC 7348; the VNI
	TunnelGeneve            // RFC 8926; the VNI
	numTunnelKinds
)

func (k TunnelKind) String() string {
	if k >= numTunnelKinds {
		return "unknown tunnel"
	}
	return [numTunnelKinds]string{
		TunnelNone:   "none",
		TunnelGTPU:   "GTP-U",
		TunnelGRE:    "GRE",
		TunnelERSPAN: "ERSPAN",
		TunnelIPIP:   "IP-in-IP",
		Tunnel6in4:   "6in4",
		TunnelVXLAN:  "VXLAN",
		TunnelGeneve: "Geneve",
	}[k]
}

const (
	// maxTunnels bounds the nesting. Two are usual (a customer's tunnel inside
	// a provider's); a packet in more is left as the flow of the tunnel that
	// carries it.
	maxTunnels = 4

	// tunnelBits is the logarithm of how many tunnels are remembered.
	tunnelBits = 10

	// maxGTPHeaders bounds the extension headers of one G-PDU, of which
	// TS 29.281 defines six.
	maxGTPHeaders = 8

	portGTPU   = 2152
	portVXLAN  = 4789
	portGeneve = 6081

	protoIPIP = 4
	proto6in4 = 41
	protoGRE  = 47

	etherBridge  = 0x6558 // transparent Ethernet bridging, RFC 1701
	etherERSPAN  = 0x88be // types I and II
	etherERSPAN3 = 0x22eb
)

func isTunnelPort(port uint16) bool {
	return port == portGTPU || port == portVXLAN || port == portGeneve
}

// peel decodes into p what the tunnel that p belongs to carries. It returns
// NotIP and leaves p as it is when p is in no tunnel, or in one whose header
// lies or which carries no IP packet that can be decoded, or orphan fragments
// alone. Fragments wait until their datagram is whole.
func (d *Decoder) peel(p *Packet) Outcome {
	if p.Fragment {
		return NotIP
	}
	b, n := p.Payload, p.PayloadLen
	switch p.Proto {
	case protoIPIP:
		return d.enter(TunnelIPIP, 0, etherIPv4, b, n, p)
	case proto6in4:
		return d.enter(Tunnel6in4, 0, etherIPv6, b, n, p)
	case protoGRE:
		return d.gre(b, n, p)
	}
	switch p.DstPort { // the source port may be any
	case portGTPU:
		return d.gtpu(b, n, p)
	case portVXLAN:
		return d.vxlan(b, n, p)
	case portGeneve:
		return d.geneve(b, n, p)
	}
	return NotIP
}

// enter decodes b as what follows the EtherType typ in a tunnel, see peel.
func (d *Decoder) enter(kind TunnelKind, id uint32, typ uint16, b []byte, n int, p *Packet) Outcome {
	if p.Tunnels == maxTunnels {
		d.TooDeep++
		return NotIP
	}
	outer := *p
	*p = Packet{
		Time: outer.Time, WireLen: outer.WireLen, VLAN: outer.VLAN, Tunnels: outer.Tunnels + 1,
		Interface: outer.Interface, SrcMAC: outer.SrcMAC, DstMAC: outer.DstMAC,
		Tunnel: kind, TunnelID: id, OuterSrc: outer.Src, OuterDst: outer.Dst,
	}
	if id == 0 && outer.TunnelID != 0 {
		p.Tunnel, p.TunnelID, p.OuterSrc, p.OuterDst = outer.Tunnel, outer.TunnelID, outer.OuterSrc, outer.OuterDst
	}
	var o Outcome
	if typ == etherBridge {
		o = d.ethernet(b, n, p)
	} else {
		o = d.etherType(typ, b, n, p)
	}
	tag := tunnelTag(kind, &outer)
	known := &d.tunnels[tag>>(32-tunnelBits)]
	if o.HasPacket() {
		*known = tag
		return o
	}
	if o == OrphanFragment && *known == tag {
		return o // of a datagram that came last-first, which is no flow of the tunnel's
	}
	*p = outer
	return NotIP
}

// tunnelTag is a hash of the tunnel that the packet outer belongs to, never 0 and
// the same in both directions.
func tunnelTag(kind TunnelKind, outer *Packet) uint32 {
	le := binary.LittleEndian
	const odd = 0x9e3779b97f4a7c15
	a := (le.Uint64(outer.Src[:]) ^ le.Uint64(outer.Src[8:])) * odd
	b := (le.Uint64(outer.Dst[:]) ^ le.Uint64(outer.Dst[8:])) * odd
	h := (a>>32 ^ a) + (b>>32 ^ b) + uint64(kind)
	return uint32(h*odd>>32) | 1
}

// gtpu decodes a G-PDU of GTP-U version 1. Other messages are not peeled.
func (d *Decoder) gtpu(b []byte, n int, p *Packet) Outcome {
	const gpdu, optional, extension = 255, 0x07, 0x04
	if len(b) < 8 || b[0]&0xf0 != 0x30 || b[1] != gpdu {
		return NotIP
	}
	flags := b[0]
	id := binary.BigEndian.Uint32(b[4:])
	size := int(binary.BigEndian.Uint16(b[2:]))
	b, n = b[8:], n-8
	if size > n {
		return NotIP
	}
	b, n = b[:min(len(b), size)], size
	if flags&optional != 0 {
		if len(b) < 4 {
			return NotIP
		}
		next := b[3]
		b, n = b[4:], n-4
		for i := 0; flags&extension != 0 && next != 0; i++ {
			if len(b) < 4 || i == maxGTPHeaders {
				return NotIP
			}
			size := int(b[0]) * 4
			if size == 0 || len(b) < size {
				return NotIP
			}
			next = b[size-1]
			b, n = b[size:], n-size
		}
	}
	if len(b) == 0 {
		return NotIP
	}
	switch b[0] >> 4 { // a PDU session of type Ethernet is not told apart otherwise
	case 4:
		return d.enter(TunnelGTPU, id, etherIPv4, b, n, p)
	case 6:
		return d.enter(TunnelGTPU, id, etherIPv6, b, n, p)
	}
	return NotIP
}

// gre decodes version 0 without source routes (RFC 1701). Version 1 is PPTP's
// (RFC 2637), whose PPP frames may be compressed or encrypted.
func (d *Decoder) gre(b []byte, n int, p *Packet) Outcome {
	const checksum, routing, key, sequence, version = 0x80, 0x40, 0x20, 0x10, 0x07
	if len(b) < 4 || b[0]&routing != 0 || b[1]&version != 0 {
		return NotIP
	}
	flags, typ := b[0], binary.BigEndian.Uint16(b[2:])
	head := 4
	if flags&checksum != 0 {
		head += 4
	}
	var id uint32
	if flags&key != 0 {
		if len(b) < head+4 {
			return NotIP
		}
		id = binary.BigEndian.Uint32(b[head:])
		head += 4
	}
	if flags&sequence != 0 {
		head += 4
	}
	if len(b) < head {
		return NotIP
	}
	b, n = b[head:], n-head
	switch typ {
	case etherIPv4, etherIPv6, etherMPLS, etherMPLSUp, etherBridge:
		return d.enter(TunnelGRE, id, typ, b, n, p)
	case etherERSPAN:
		if flags&sequence == 0 { // type I has no header
			return d.enter(TunnelERSPAN, 0, etherBridge, b, n, p)
		}
		if len(b) < 8 || b[0]>>4 != 1 {
			return NotIP
		}
		id = uint32(binary.BigEndian.Uint16(b[2:]) & 0x03ff)
		return d.enter(TunnelERSPAN, id, etherBridge, b[8:], n-8, p)
	case etherERSPAN3:
		const frameType, subheader = 0x7c, 0x01
		if len(b) < 12 || b[0]>>4 != 2 || b[10]&frameType != 0 {
			return NotIP
		}
		head = 12
		if b[11]&subheader != 0 {
			head += 8
		}
		if len(b) < head {
			return NotIP
		}
		id = uint32(binary.BigEndian.Uint16(b[2:]) & 0x03ff)
		return d.enter(TunnelERSPAN, id, etherBridge, b[head:], n-head, p)
	}
	return NotIP
}

func (d *Decoder) vxlan(b []byte, n int, p *Packet) Outcome {
	const hasVNI = 0x08
	if len(b) < 8 || b[0]&hasVNI == 0 {
		return NotIP
	}
	return d.enter(TunnelVXLAN, binary.BigEndian.Uint32(b[4:])>>8, etherBridge, b[8:], n-8, p)
}

// geneve skips the options; control packets are not peeled.
func (d *Decoder) geneve(b []byte, n int, p *Packet) Outcome {
	const version, options, control = 0xc0, 0x3f, 0x80
	if len(b) < 8 || b[0]&version != 0 || b[1]&control != 0 {
		return NotIP
	}
	head := 8 + int(b[0]&options)*4
	if len(b) < head {
		return NotIP
	}
	typ := binary.BigEndian.Uint16(b[2:])
	if typ != etherIPv4 && typ != etherIPv6 && typ != etherBridge {
		return NotIP
	}
	return d.enter(TunnelGeneve, binary.BigEndian.Uint32(b[4:])>>8, typ, b[head:], n-head, p)
}
