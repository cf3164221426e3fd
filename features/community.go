package features

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"

	"github.com/picket-ids/picket/capture"
)

// CommunityID returns the flow identifier that Zeek, Suricata and others log too:
// Community ID version 1 with seed 0 (github.com/corelight/community-id-spec). It
// is the same for both directions. Tunnels do not enter into it.
func (r *Row) CommunityID() string {
	src, dst := r.Src.Netip().AsSlice(), r.Dst.Netip().AsSlice()
	sport, dport, oneWay := r.SrcPort, r.DstPort, false
	switch r.Proto {
	case capture.ProtoICMP:
		sport, dport, oneWay = icmpPorts(r.ICMPType, r.ICMPCode, icmpPairs)
	case capture.ProtoICMPv6:
		sport, dport, oneWay = icmpPorts(r.ICMPType, r.ICMPCode, icmpv6Pairs)
	}
	if c := bytes.Compare(src, dst); !oneWay && (c > 0 || c == 0 && sport > dport) {
		src, dst, sport, dport = dst, src, dport, sport
	}
	b := make([]byte, 0, 40)
	b = append(b, 0, 0) // seed
	b = append(append(b, src...), dst...)
	b = append(b, r.Proto, 0)
	switch r.Proto {
	case capture.ProtoICMP, capture.ProtoTCP, capture.ProtoUDP, capture.ProtoICMPv6, capture.ProtoSCTP:
		b = binary.BigEndian.AppendUint16(b, sport)
		b = binary.BigEndian.AppendUint16(b, dport)
	}
	sum := sha1.Sum(b)
	return "1:" + base64.StdEncoding.EncodeToString(sum[:])
}

// icmpPorts maps an ICMP message to the ports that the specification gives it: its
// type and that of its answer, or its type and code when it has none.
func icmpPorts(typ, code uint8, pairs map[uint8]uint8) (sport, dport uint16, oneWay bool) {
	if answer, ok := pairs[typ]; ok {
		return uint16(typ), uint16(answer), false
	}
	return uint16(typ), uint16(code), true
}

var (
	icmpPairs   = map[uint8]uint8{8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 10: 9, 9: 10, 17: 18, 18: 17}
	icmpv6Pairs = map[uint8]uint8{128: 129, 129: 128, 133: 134, 134: 133, 135: 136, 136: 135, 130: 131, 131: 130, 144: 145, 145: 144, 139: 140, 140: 139}
)
