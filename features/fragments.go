package features

import (
	"encoding/binary"
	"math/bits"

	"github.com/picket-ids/picket/capture"
)

// fragments remembers the ports of first fragments, so that the later ones,
// which carry none, count in the same connection. It is a cache of fixed size:
// a newer datagram takes the place of an older one with the same hash.
type fragments [256]struct {
	src, dst         capture.Addr
	id               uint32
	proto            uint8
	srcPort, dstPort uint16
	time             int64  // ns, of the first fragment
	end              uint32 // octets seen without a gap, 0 once the last fragment came
}

// fragmentTimeout is how long a datagram's fragments may take (RFC 8200, section 4.5).
const fragmentTimeout = 60 * second

// ports returns the ports of p's datagram, whether p overlaps a fragment before
// it, and false when the first fragment was not seen. now is the packet clock.
func (f *fragments) ports(p *capture.Packet, now int64) (src, dst uint16, overlap, ok bool) {
	// No random seed here: which datagram is forgotten must not differ from
	// one run to the next.
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(p.Src[8:])^binary.LittleEndian.Uint64(p.Dst[8:])^uint64(p.FragmentID), 0x9e3779b97f4a7c15)
	e := &f[(hi^lo)%uint64(len(f))]
	same := e.src == p.Src && e.dst == p.Dst && e.id == p.FragmentID && e.proto == p.Proto && now-e.time < fragmentTimeout
	if p.FragmentOffset == 0 {
		overlap = same && e.end > 0
		e.src, e.dst, e.id, e.proto, e.time = p.Src, p.Dst, p.FragmentID, p.Proto, now
		e.srcPort, e.dstPort = p.SrcPort, p.DstPort
		if isICMP(p.Proto) {
			e.srcPort = icmpPort(p.Proto, p.ICMPType, p.ICMPCode, p.ICMPID)
			e.dstPort = e.srcPort
		}
		e.end = uint32(p.FragmentLen)
		return e.srcPort, e.dstPort, overlap, true
	}
	if !same {
		return 0, 0, false, false
	}
	// Behind a gap nothing is known to overlap: fragments may come in any order.
	if offset := uint32(p.FragmentOffset); offset <= e.end {
		overlap = offset < e.end
		e.end = max(e.end, offset+uint32(p.FragmentLen))
	}
	if !p.MoreFragments {
		e.end = 0 // the sender may use the number again
	}
	return e.srcPort, e.dstPort, overlap, true
}
