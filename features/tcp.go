package features

import "github.com/picket-ids/picket/capture"

// Sides of a connection, indices of conn.dir.
const (
	originator = 0
	responder  = 1
)

// What a TCP connection has shown so far, bits of conn.tcp.
const (
	sawSYN       uint16 = 1 << iota // from the originator
	sawAnswer                       // a SYN-ACK, or any ACK without RST, from the responder
	sawOriginAck                    // anything of the originator's after the answer
	finOriginator
	finResponder
	rstOriginator
	rstResponder
)

const (
	finBoth = finOriginator | finResponder
	rstAny  = rstOriginator | rstResponder
)

// Flag is the state of a connection when its row is made: Bro's conn_state in
// the names of KDD'99. Its value is the code of the feature flag.
type Flag uint8

const (
	SF     Flag = iota // established and closed by both; UDP and ICMP too
	S0                 // SYN without an answer
	S1                 // established, not closed
	S2                 // established, closed by the originator only
	S3                 // established, closed by the responder only
	REJ                // SYN answered by RST
	RSTO               // established, then reset by the originator
	RSTR               // established, then reset by the responder
	RSTOS0             // SYN, then RST by the originator, without an answer
	SH                 // SYN, then FIN by the originator, without an answer
	OTH                // seen from its middle only
	numFlags
)

var flagNames = [numFlags]string{"SF", "S0", "S1", "S2", "S3", "REJ", "RSTO", "RSTR", "RSTOS0", "SH", "OTH"}

func (f Flag) String() string { return flagNames[f] }

// errorKind says which error rates f counts in.
func (f Flag) errorKind() errorKind {
	switch f {
	case S0, S1, S2, S3, SH:
		return sError
	case REJ, RSTO, RSTR, RSTOS0:
		return rError
	}
	return noError
}

func (c *conn) flag() Flag {
	if c.key.proto != capture.ProtoTCP {
		return SF
	}
	has := func(bits uint16) bool { return c.tcp&bits != 0 }
	switch {
	case !has(sawSYN) && !has(sawAnswer):
		return OTH
	case !has(sawSYN) && !has(sawOriginAck):
		// A SYN-ACK without its SYN, and no sign of the originator. Bro's SHR
		// folds into SH, its RSTRH into OTH.
		if has(finResponder) && !has(rstAny) {
			return SH
		}
		return OTH
	case !has(sawAnswer):
		switch {
		case has(rstResponder):
			return REJ
		case has(rstOriginator):
			return RSTOS0
		case has(finOriginator):
			return SH
		}
		return S0
	case c.tcp&finBoth == finBoth:
		return SF
	case has(rstOriginator):
		return RSTO
	case has(rstResponder):
		return RSTR
	case has(finOriginator):
		return S2
	case has(finResponder):
		return S3
	}
	return S1
}

// closed reports whether c was ended by its peers.
func (c *conn) closed() bool { return c.tcp&rstAny != 0 || c.tcp&finBoth == finBoth }

// reused reports whether p, a SYN from the key's hi or lo, begins another connection on
// the ports of c, and is none of c's that is stored late or sent again.
func (c *conn) reused(p *capture.Packet, hi bool) bool {
	if c.tcp&(sawSYN|sawAnswer) != 0 {
		return c.closed() && p.Seq != c.isn
	}
	side := responder
	if hi == c.hiFirst {
		side = originator
	}
	// Before it is what its sender has sent since: all of it, less what is missing.
	d := &c.dir[side]
	first := d.next - uint32(d.payload) - d.missing
	if c.tcp&(finOriginator<<side) != 0 {
		first--
	}
	return c.sequenced() && p.Time >= c.start && !(d.sequenced && p.Seq+1 == first)
}

// track takes one TCP segment of the given side into the state of c and returns
// the octets of payload that are new to it.
func (c *conn) track(p *capture.Packet, side int) int {
	switch {
	case p.Flags&capture.RST != 0:
		// What follows the end of a connection says nothing of how it ended.
		if !c.closed() {
			c.tcp |= rstOriginator << side
		}
	case side == originator && p.Flags&(capture.SYN|capture.ACK) == capture.SYN:
		if c.tcp&sawSYN == 0 {
			c.isn = p.Seq
			if c.said&(spoke<<responder) != 0 { // the SYN is stored after the rest
				c.tcp |= sawAnswer | sawOriginAck
			}
		}
		c.tcp |= sawSYN
	case side == responder && p.Flags&capture.ACK != 0 && (p.Flags&capture.SYN != 0 || c.tcp&sawSYN != 0):
		if c.tcp&(sawSYN|sawAnswer) == 0 {
			c.isn = p.Ack - 1 // of the SYN, which is stored later or missing
		}
		c.tcp |= sawAnswer
	case side == originator && c.tcp&sawAnswer != 0:
		c.tcp |= sawOriginAck
	}
	if p.Flags&capture.FIN != 0 && c.tcp&rstAny == 0 {
		c.tcp |= finOriginator << side
	}
	return c.dir[side].sequence(p)
}

// maxGap is the farthest that a segment may lie ahead of the one before it and
// still be taken for the same sequence space: the largest window (RFC 7323) is
// larger, but no gateway has that much in flight.
const maxGap = 1 << 22

// sequence follows the sequence numbers of one direction by the highest seen
// and the octets missing below it, and returns how many of p's payload are new:
// retransmissions are counted once.
func (d *direction) sequence(p *capture.Packet) int {
	if p.Flags&capture.RST != 0 {
		return 0 // a reset's text is no data (RFC 9293, section 3.10.7.4), its number often made up
	}
	seq := p.Seq
	if p.Flags&capture.SYN != 0 {
		seq++
	}
	n, fin := p.PayloadLen, 0
	if p.Flags&capture.FIN != 0 {
		fin = 1 // takes a number too
	}
	end := seq + uint32(n+fin)
	if !d.sequenced {
		d.sequenced, d.next = true, end
		return n
	}
	switch ahead := int32(end - d.next); {
	case ahead > maxGap || ahead < -maxGap:
		d.next, d.missing = end, 0
		return n
	case ahead > 0:
		d.next = end
		if gap := int(ahead) - n - fin; gap > 0 {
			d.missing += uint32(gap)
			return n
		}
		return int(ahead) - fin
	default:
		found := min(uint32(n+fin), d.missing) // which passes an int of 32 bits
		d.missing -= found
		return min(n, int(found))
	}
}
