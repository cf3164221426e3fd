// Package capture reads link-layer frames from capture files, standard input
// and network interfaces and decodes their headers into one flat Packet.
package capture

import (
	"fmt"
	"net/netip"
)

// LinkType is the link-layer header type of a frame, numbered as in the
// tcpdump.org registry of LINKTYPE values.
type LinkType uint32

// Link types that Decode understands.
const (
	LinkNull     LinkType = 0   // BSD loopback: address family in the host's byte order
	LinkEthernet LinkType = 1   // IEEE 802.3
	LinkRaw      LinkType = 101 // IPv4 or IPv6, told apart by the version nibble
	LinkLoop     LinkType = 108 // OpenBSD loopback: address family in network byte order
	LinkSLL      LinkType = 113 // Linux "cooked" capture
	LinkIPv4     LinkType = 228 // IPv4
	LinkIPv6     LinkType = 229 // IPv6
	LinkSLL2     LinkType = 276 // Linux "cooked" capture, version 2
)

// A Frame is one link-layer frame as a source read it.
type Frame struct {
	Data      []byte   // captured octets; owned by the source, valid until its next Next
	Time      int64    // nanoseconds since the Unix epoch
	WireLen   int      // octets on the wire, ≥ len(Data)
	Link      LinkType // of the interface it was seen on
	Interface int      // index of that interface in the source, 0 when it has only one
}

// A Source yields frames in the order in which it read them.
type Source interface {
	// Next fills f with the next frame and returns io.EOF after the last.
	// It is not safe for concurrent use.
	Next(f *Frame) error
	Close() error
}

// Addr is an IPv6 address, or an IPv4 address mapped into IPv6 (RFC 4291,
// section 2.5.5.2). Unlike netip.Addr it holds no pointer, so that tables keyed
// by it are free of garbage collection.
type Addr [16]byte

// Netip returns a as the standard library's type; mapped IPv4 is unmapped.
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

func (a Addr) String() string { return a.Netip().String() }

// AddrFrom returns the Addr of a, without its zone.
func AddrFrom(a netip.Addr) Addr { return Addr(a.As16()) }

// IP protocol numbers (IANA) that Packet.Proto takes.
const (
	ProtoICMP   uint8 = 1
	ProtoTCP    uint8 = 6
	ProtoUDP    uint8 = 17
	ProtoICMPv6 uint8 = 58
	ProtoSCTP   uint8 = 132
)

// TCP flag bits of Packet.Flags (RFC 9293, section 3.1).
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// MAC is a 48-bit hardware address (EUI-48).
type MAC [6]byte

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Packet is one decoded packet, the innermost if it came by tunnels. Decode
// overwrites every field, so one Packet is reused for all the frames of a source;
// Payload points into the frame, or into the datagram that its decoder
// reassembled, and is valid until the next frame is read or decoded, as ARP is.
//
// The fields are in an order with few gaps: 64 bytes more made a decode 9 % slower.
type Packet struct {
	Time int64 // nanoseconds since the Unix epoch
	// WireLen counts the octets of the frame on the wire. WireLen and PayloadLen of
	// a first fragment include the orphans that came before it, if these have more
	// octets than it has.
	WireLen int

	Interface int // of the frame
	// SrcMAC and DstMAC are those of the frame itself, not of one inside a tunnel.
	// They are zero where the link has none; cooked links have only a source.
	SrcMAC, DstMAC MAC

	Src, Dst         Addr
	SrcPort, DstPort uint16 // TCP, UDP, SCTP and their fragments; 0 for the rest
	Version          uint8  // 4 or 6; 0 of ARP, which is no IP packet
	Proto            uint8  // IP protocol of the payload, past all extension headers
	TTL              uint8  // or hop limit

	Flags    uint8  // TCP
	Seq, Ack uint32 // TCP
	Window   uint16 // TCP, as sent, unscaled

	VLAN uint16 // of the frame itself, outermost VLAN identifier, 0 when untagged

	ICMPType, ICMPCode uint8  // ICMP and ICMPv6
	ICMPID             uint16 // of echo requests and replies
	// Quoted is the packet an ICMP error quotes, valid when HasQuote; Proto
	// there is its protocol, SrcPort and DstPort its ports.
	Quoted   Quote
	HasQuote bool

	Fragment      bool // any fragment of a larger datagram
	MoreFragments bool
	// WrongFragment marks one with a wrong header checksum or an impossible
	// offset, or that overlaps another without being its duplicate.
	WrongFragment  bool
	FragmentID     uint32
	FragmentLen    int    // octets of the datagram that it carries
	FragmentOffset uint16 // octets from the start of the datagram; 0 for the first

	// Tunnel, TunnelID and OuterSrc and OuterDst (the addresses of its IP
	// header) are those of the innermost tunnel whose TunnelID is not 0, else of
	// the innermost; MPLS and PPPoE are no tunnels here. A VNI is the same in
	// both directions; a TEID belongs to one, as a GRE key may, and so cannot be
	// part of a connection's key.
	Tunnel             TunnelKind
	Tunnels            uint8 // tunnels peeled, at most 4
	TunnelID           uint32
	OuterSrc, OuterDst Addr

	// PayloadLen counts the octets behind the transport header on the wire: by
	// the length in the IP header, so without Ethernet padding and whatever
	// the capture cut off.
	PayloadLen int
	Payload    []byte // the captured part of it
	// Whole is the payload of the reassembled datagram, at most 65,535 octets,
	// in the packet of the fragment that completed it; else nil. If no fragment
	// had the whole transport header, what is in it is here, too.
	Whole []byte

	ARP *ARPMessage // nil unless the packet is one
}

// ARPMessage is an ARP message of IPv4 over Ethernet (RFC 826).
type ARPMessage struct {
	Op                   uint16 // 1 request, 2 reply; never 0
	SenderMAC, TargetMAC MAC
	Sender, Target       Addr
}

// Quote is the start of the packet that an ICMP error returns to its sender.
type Quote struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint8
	ICMPType         uint8  // of a quoted ICMP packet
	ICMPID           uint16 // of a quoted echo
}

// Outcome says what became of a frame. Decoded, LaterFragment and OtherTransport
// leave a valid Packet, ARP leaves one without an IP header; every outcome is counted.
type Outcome uint8

const (
	Decoded         Outcome = iota // TCP, UDP, SCTP, ICMP, ICMPv6
	LaterFragment                  // IP fragment without a whole transport header, its ports known
	OtherTransport                 // IP with another payload: no ports
	OrphanFragment                 // later fragment whose first did not come before it
	ARP                            // Packet.ARP holds it, if it is of IPv4 over Ethernet
	NotIP                          // another EtherType, or LLC
	Truncated                      // the capture ends before the headers do, the wire did not
	BadLength                      // a header states a length that cannot be
	BadHeader                      // a version or header that cannot be
	UnsupportedLink                // of a link type Decode does not know
	Copy                           // second copy of a packet on an interface that duplicates, see Mirrors
	NumOutcomes
)

// HasPacket reports whether Decode left a valid IP packet. An ARP message is none: who
// wants it looks at Packet.ARP.
func (o Outcome) HasPacket() bool { return o <= OtherTransport }
