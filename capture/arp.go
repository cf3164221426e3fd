package capture

import "encoding/binary"

// arp decodes RFC 826. Only messages of IPv4 over Ethernet are decoded; those of other
// networks leave p.ARP nil.
func (d *Decoder) arp(b []byte, n int, p *Packet) Outcome {
	const types, header, ethernet = 8, 28, 1
	if len(b) < types {
		return short(n, types)
	}
	if binary.BigEndian.Uint16(b) != ethernet || binary.BigEndian.Uint16(b[2:]) != etherIPv4 {
		return ARP
	}
	if b[4] != 6 || b[5] != 4 {
		return BadLength
	}
	if len(b) < header {
		return short(n, header)
	}
	op := binary.BigEndian.Uint16(b[6:])
	if op == 0 {
		return BadHeader // reserved by RFC 5494
	}
	m := &d.message
	p.ARP = m
	m.Op, m.SenderMAC, m.TargetMAC = op, MAC(b[8:]), MAC(b[18:])
	m.Sender.setIPv4(b[14:])
	m.Target.setIPv4(b[24:])
	return ARP
}
