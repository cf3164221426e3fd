package capture

import (
	"encoding/binary"
	"fmt"
)

// linkType maps the numbers that some systems write for raw IP (their own DLT
// values) to the registry's.
func linkType(n uint16) LinkType {
	if n == 12 || n == 14 {
		return LinkRaw
	}
	return LinkType(n)
}

// String returns the registry's name and the number, "IEEE802_11 (105)".
func (l LinkType) String() string {
	name, ok := linkNames[l]
	if !ok {
		name = "unknown link type"
	}
	return fmt.Sprintf("%s (%d)", name, uint32(l))
}

// Source: https://www.tcpdump.org/linktypes.html
var linkNames = map[LinkType]string{
	LinkNull: "NULL", LinkEthernet: "ETHERNET", LinkRaw: "RAW", LinkLoop: "LOOP",
	LinkSLL: "LINUX_SLL", LinkIPv4: "IPV4", LinkIPv6: "IPV6", LinkSLL2: "LINUX_SLL2",
	3: "AX25", 6: "IEEE802_5", 7: "ARCNET_BSD", 8: "SLIP", 9: "PPP", 10: "FDDI",
	50: "PPP_HDLC", 51: "PPP_ETHER", 100: "ATM_RFC1483", 104: "C_HDLC",
	105: "IEEE802_11", 107: "FRELAY", 117: "PFLOG", 119: "IEEE802_11_PRISM",
	122: "IP_OVER_FC", 127: "IEEE802_11_RADIOTAP", 129: "ARCNET_LINUX",
	138: "APPLE_IP_OVER_IEEE1394", 139: "MTP2_WITH_PHDR", 140: "MTP2", 141: "MTP3",
	142: "SCCP", 143: "DOCSIS", 144: "LINUX_IRDA", 147: "USER0", 148: "USER1",
	149: "USER2", 150: "USER3", 161: "USER14", 162: "USER15", 163: "IEEE802_11_AVS",
	166: "PPP_PPPD", 169: "GPRS_LLC", 177: "LINUX_LAPD", 187: "BLUETOOTH_HCI_H4",
	189: "USB_LINUX", 192: "PPI", 195: "IEEE802_15_4_WITHFCS", 197: "ERF",
	201: "BLUETOOTH_HCI_H4_WITH_PHDR", 204: "PPP_WITH_DIR", 209: "I2C_LINUX",
	212: "LIN", 215: "IEEE802_15_4_NONASK_PHY", 220: "USB_LINUX_MMAPPED",
	226: "IPNET", 227: "CAN_SOCKETCAN", 230: "IEEE802_15_4_NOFCS", 231: "DBUS",
	235: "DVB_CI", 239: "NFLOG", 240: "NETANALYZER", 241: "NETANALYZER_TRANSPARENT",
	242: "IPOIB", 243: "MPEG_2_TS", 247: "INFINIBAND", 248: "SCTP", 249: "USBPCAP",
	250: "RTAC_SERIAL", 251: "BLUETOOTH_LE_LL", 252: "WIRESHARK_UPPER_PDU",
	253: "NETLINK", 254: "BLUETOOTH_LINUX_MONITOR", 256: "BLUETOOTH_LE_LL_WITH_PHDR",
	258: "PKTAP", 259: "EPON", 264: "ISO_14443", 266: "USB_DARWIN", 270: "LORATAP",
	271: "VSOCK", 272: "NORDIC_BLE", 280: "WATTSTOPPER_DLM", 283: "IEEE802_15_4_TAP",
	289: "ETW",
}

// EtherTypes (IANA, IEEE 802 numbers).
const (
	etherIPv4   = 0x0800
	etherARP    = 0x0806
	etherVLAN   = 0x8100 // 802.1Q
	etherIPv6   = 0x86dd
	etherQinQ   = 0x88a8 // 802.1ad
	etherQinQ91 = 0x9100 // before 802.1ad
	etherQinQ92 = 0x9200
	etherMPLS   = 0x8847 // RFC 3032
	etherMPLSUp = 0x8848 // with an upstream-assigned label, RFC 5332
	etherPPPoE  = 0x8864 // RFC 2516, session

	etherMin = 0x0600 // smaller ones are lengths of 802.3
	sllLLC   = 0x0004 // SLL's protocol of frames with an LLC header
)

// maxVLAN bounds the tags of one frame: two are usual, each further one is a
// provider inside a provider.
const maxVLAN = 8

// maxLabels bounds the MPLS label stack: five are many.
const maxLabels = 8

// Every function that decodes takes the captured octets b of what it decodes and
// the number n ≥ len(b) that there were on the wire. A header that does not fit
// n is BadLength, one that fits n but not b is Truncated.

func short(n, need int) Outcome {
	if n < need {
		return BadLength
	}
	return Truncated
}

func (d *Decoder) ethernet(b []byte, n int, p *Packet) Outcome {
	if len(b) < 14 {
		return short(n, 14)
	}
	return d.etherType(binary.BigEndian.Uint16(b[12:]), b[14:], n-14, p)
}

// etherType decodes what follows an EtherType, tags included.
func (d *Decoder) etherType(typ uint16, b []byte, n int, p *Packet) Outcome {
	for range maxVLAN + 1 {
		switch typ {
		case etherIPv4:
			return d.ipv4(b, n, p)
		case etherIPv6:
			return d.ipv6(b, n, p)
		case etherARP:
			return d.arp(b, n, p)
		case etherMPLS, etherMPLSUp:
			return d.mpls(b, n, p)
		case etherPPPoE:
			return d.pppoe(b, n, p)
		case etherVLAN, etherQinQ, etherQinQ91, etherQinQ92:
			if len(b) < 4 {
				return short(n, 4)
			}
			if p.VLAN == 0 && p.Tunnels == 0 {
				p.VLAN = binary.BigEndian.Uint16(b) & 0x0fff
			}
			typ = binary.BigEndian.Uint16(b[2:])
			b, n = b[4:], n-4
		default:
			if typ < etherMin {
				return d.llc(int(typ), b, n, p)
			}
			return NotIP
		}
	}
	return BadHeader
}

// mpls decodes RFC 3032. What lies under the labels is not stated; IP is known
// by its version (RFC 4928), so pseudowires are NotIP.
func (d *Decoder) mpls(b []byte, n int, p *Packet) Outcome {
	for range maxLabels {
		if len(b) < 4 {
			return short(n, 4)
		}
		bottom := b[2]&1 != 0
		b, n = b[4:], n-4
		if !bottom {
			continue
		}
		if o := d.ip(b, n, p); o != BadHeader {
			return o
		}
		return NotIP
	}
	return BadHeader
}

// pppoe decodes the frames of a PPPoE session (RFC 2516).
func (d *Decoder) pppoe(b []byte, n int, p *Packet) Outcome {
	const header, pppIPv4, pppIPv6 = 6, 0x0021, 0x0057
	if len(b) < header+2 {
		return short(n, header+2)
	}
	if b[0] != 0x11 || b[1] != 0 {
		return BadHeader
	}
	size, proto := int(binary.BigEndian.Uint16(b[4:])), binary.BigEndian.Uint16(b[6:])
	b, n = b[header:], n-header
	if size < 2 || size > n {
		return BadLength
	}
	b, n = b[2:max(2, min(len(b), size))], size-2
	switch proto {
	case pppIPv4:
		return d.ipv4(b, n, p)
	case pppIPv6:
		return d.ipv6(b, n, p)
	}
	return NotIP
}

// llc decodes an 802.2 header and the SNAP header behind it; size is the length
// that 802.3 states, which only ends the frame before its padding.
func (d *Decoder) llc(size int, b []byte, n int, p *Packet) Outcome {
	if size < n {
		n = size
		b = b[:min(len(b), n)]
	}
	if len(b) < 8 || b[0] != 0xaa || b[1] != 0xaa || b[2] != 3 {
		return NotIP
	}
	oui := uint32(b[3])<<16 | uint32(b[4])<<8 | uint32(b[5])
	if oui != 0 && oui != 0x0000f8 { // RFC 1042; 802.1H
		return NotIP
	}
	typ := binary.BigEndian.Uint16(b[6:])
	if typ < etherMin {
		return NotIP
	}
	return d.etherType(typ, b[8:], n-8, p)
}

// sll decodes Linux "cooked" frames with a header of size bytes. The protocol is at
// byte at, the length of the source address at byte from, the address behind it.
func (d *Decoder) sll(at, from, size int, b []byte, n int, p *Packet) Outcome {
	if len(b) < size {
		return short(n, size)
	}
	typ := binary.BigEndian.Uint16(b[at:])
	if b[from] == byte(len(p.SrcMAC)) {
		p.SrcMAC = MAC(b[from+1:])
	}
	b, n = b[size:], n-size
	switch {
	case typ >= etherMin:
		return d.etherType(typ, b, n, p)
	case typ == sllLLC:
		return d.llc(n, b, n, p)
	}
	return NotIP
}

// loopback decodes BSD loopback frames. The family is in the byte order of the
// host that captured, its number for IPv6 in the numbering of that host.
func (d *Decoder) loopback(b []byte, n int, p *Packet) Outcome {
	if len(b) < 4 {
		return short(n, 4)
	}
	family := binary.LittleEndian.Uint32(b)
	if family > 0xffff {
		family = binary.BigEndian.Uint32(b)
	}
	switch family {
	case 2:
		return d.ipv4(b[4:], n-4, p)
	case 10, 23, 24, 28, 30: // Linux, Windows, NetBSD and OpenBSD, FreeBSD, Darwin
		return d.ipv6(b[4:], n-4, p)
	}
	return NotIP
}

// ip decodes by the version nibble.
func (d *Decoder) ip(b []byte, n int, p *Packet) Outcome {
	if len(b) < 1 {
		return short(n, 1)
	}
	switch b[0] >> 4 {
	case 4:
		return d.ipv4(b, n, p)
	case 6:
		return d.ipv6(b, n, p)
	}
	return BadHeader
}
