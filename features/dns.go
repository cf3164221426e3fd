package features

import (
	"encoding/binary"
	"math"

	"github.com/picket-ids/picket/capture"
)

const (
	portDNS    = 53
	maxParents = 4096 // pairs of a source and a domain, and as many sources, remembered at a time
)

// dnsState is what the DNS features keep of one connection.
type dnsState struct {
	length  uint8   // octets of the longest name asked for
	entropy float32 // bits per octet of that name's labels below its parent
	answer  uint16  // octets of the largest response
	names   float32 // distinct names that the source asked for below its parent
}

// dnsSource is what they keep of one source: counts that fall to 1/e in longSpan.
type dnsSource struct {
	at                int64 // ns, the time that they stand at
	queries, nxdomain float64
}

func (s *dnsSource) turn(now int64) {
	f := fade(now-s.at, longSpan)
	s.queries, s.nxdomain = fadeBy(s.queries, f), fadeBy(s.nxdomain, f)
	s.at = max(s.at, now)
}

var dnsKind = groupKind{func(opener) group { return newDNS() }}

// dns is the state of the group. It belongs to the tracker.
type dns struct {
	columnsOf[dnsView]
	current dnsView // of the row being made
	conns   perConn[dnsState]
	sources *lru[capture.Addr, dnsSource]
	parents *lru[uint64, recentSketch] // by hash of source and parent domain
}

func newDNS() *dns {
	return &dns{sources: newLRU[capture.Addr, dnsSource](maxParents), parents: newLRU[uint64, recentSketch](maxParents)}
}

func (d *dns) begin(i int32) { d.conns.begin(i) }

func (d *dns) packet(i int32, _ *conn, p *capture.Packet, _ int, now int64, _ int) {
	if p.Proto == capture.ProtoUDP && (p.SrcPort == portDNS || p.DstPort == portDNS) {
		d.add(p, i, now)
	}
}

// swap has nothing to do: queries and responses tell the client.
func (d *dns) swap(int32) {}

func (d *dns) row(i int32, c *conn, s *sample, values []float32) {
	client := c.addr(originator)
	d.current = d.view(i, &client, s.time)
	d.set(values, &d.current)
}

// add takes a packet of connection i, from or to the port of DNS.
func (d *dns) add(p *capture.Packet, i int32, now int64) {
	message, size := p.Payload, p.PayloadLen
	if p.Whole != nil {
		message, size = p.Whole, len(p.Whole)
	} else if p.Fragment {
		return // the message comes whole with its last fragment
	}
	response, code, ok := dnsHeader(message)
	client := &p.Src
	if response {
		client = &p.Dst
	}
	if !ok || response && p.SrcPort != portDNS || !response && p.DstPort != portDNS {
		return
	}
	s := d.conns.at(i)
	source, _ := d.sources.use(client, hashAddr(client))
	source.turn(now)
	if response {
		s.answer = max(s.answer, uint16(min(size, math.MaxUint16)))
		if code == nxdomain {
			source.nxdomain++
		}
		return
	}
	source.queries++
	var q dnsName
	if !q.parse(message[dnsHeaderLen:]) {
		return
	}
	if q.length >= s.length {
		s.length, s.entropy = q.length, float32(entropy(q.octets[:max(int(q.parent)-1, 0)]))
	}
	k := avalanche(HashAddr(*client) ^ hashOctets(q.octets[q.parent:q.length]))
	names, _ := d.parents.use(&k, hashUint64(k))
	names.turn(now, longSpan)
	names.add(hashOctets(q.octets[:q.length]))
	s.names = max(s.names, float32(names.count()))
}

// reset forgets the sources, not the connections.
func (d *dns) reset() {
	d.sources.reset()
	d.parents.reset()
}

func (d *dns) forgotten() uint64 { return d.sources.evicted + d.parents.evicted }

const (
	dnsHeaderLen = 12
	nxdomain     = 3 // RCODE
)

// dnsHeader reads the header of a DNS message (RFC 1035, section 4.1.1). It is
// ok if it is that of a standard query for one name, or of the response to one.
func dnsHeader(b []byte) (response bool, code uint8, ok bool) {
	if len(b) < dnsHeaderLen || binary.BigEndian.Uint16(b[4:]) != 1 || b[2]&0x78 != 0 {
		return false, 0, false
	}
	return b[2]&0x80 != 0, b[3] & 15, true
}

// dnsName is the name of a question.
type dnsName struct {
	octets [255]byte // in lower case, its labels joined by dots
	length uint8     // used of octets
	parent uint8     // where the last two labels begin: the registered domain, for most
}

// parse reports whether b begins with a whole question: names that are
// compressed have no place there.
func (q *dnsName) parse(b []byte) bool {
	n, last, before := 0, 0, 0 // last and before: where the last label and the one before it begin
	for {
		if len(b) == 0 {
			return false
		}
		size := int(b[0])
		if size == 0 {
			break
		}
		if size > 63 || len(b) < 1+size || n+1+size > len(q.octets) {
			return false
		}
		if n > 0 {
			q.octets[n] = '.'
			n++
		}
		before, last = last, n
		for _, c := range b[1 : 1+size] {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			q.octets[n] = c
			n++
		}
		b = b[1+size:]
	}
	q.length, q.parent = uint8(n), uint8(before)
	return len(b) >= 5 // the end of the name, type and class
}

// hashOctets is FNV-1a, finished; alike in every process.
func hashOctets(b []byte) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, c := range b {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	return avalanche(h)
}

// dnsView is what a row says.
type dnsView struct {
	dnsState
	queries, nxdomainShare float64
}

func (d *dns) view(i int32, client *capture.Addr, now int64) (v dnsView) {
	v.dnsState = *d.conns.at(i)
	if source := d.sources.peek(client, hashAddr(client)); source != nil {
		source.turn(now)
		v.queries, v.nxdomainShare = source.queries, min(1, ratio(source.nxdomain, source.queries))
	}
	return v
}

func dnsFeature(name, unit, doc string, value func(*dnsView) float64) Feature {
	return Feature{Name: name, Group: "behaviour", Unit: unit, Doc: doc, Source: "Slips, DNS tunnel detection",
		needs: &dnsKind, value: value}
}

// dnsFeatures belong to the behaviour group.
var dnsFeatures = []Feature{
	dnsFeature("dns_name_length", "bytes", "longest name queried in this connection, as text, over UDP port 53 (one question a message); 0 for none", func(v *dnsView) float64 { return float64(v.length) }),
	dnsFeature("dns_name_entropy", "bits", "Shannon entropy per byte of that name without its last two labels, in lower case; 0 when it has no more", func(v *dnsView) float64 { return float64(v.entropy) }),
	dnsFeature("dns_names_under_parent", "count", "distinct names that the source queried under the same last two labels in the last 5 to 10 min (HyperLogLog, standard error 13 %), the most at any query of this connection", func(v *dnsView) float64 { return float64(v.names) }),
	dnsFeature("dns_answer_bytes", "bytes", "largest response message of this connection on the wire, reassembled, at most 65,535; 0 for none", func(v *dnsView) float64 { return float64(v.answer) }),
	dnsFeature("dns_queries_600s", "count", "DNS queries of the source, each weighted by e^(-age/600s)", func(v *dnsView) float64 { return v.queries }),
	dnsFeature("dns_nxdomain_share", "share", "NXDOMAIN responses to the source, likewise weighted, / dns_queries_600s, at most 1", func(v *dnsView) float64 { return v.nxdomainShare }),
}
