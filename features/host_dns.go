package features

import (
	"encoding/binary"

	"github.com/picket-ids/picket/capture"
)

// Columns of DNS over UDP.
const (
	dnsQueries = iota
	dnsNXDomain
	dnsFailed
	dnsOddTypes
	dnsAny
	dnsLong
	dnsNameBytes
	dnsAnswerBytes
	dnsConflicts
	inDNSQueries
	inDNSUnasked
	inDNSConflicts
	dnsNames
	dnsMostBytes
	dnsMostNames
)

var dnsColumns = windowGroup{"dns", []windowColumn{
	dnsQueries:     {"dns_queries", "count", "DNS queries that the host sent, over UDP to port 53", countPlain, nil},
	dnsNXDomain:    {"dns_nxdomain", "count", "answers NXDOMAIN to the host", countPlain, nil},
	dnsFailed:      {"dns_failed", "count", "answers with another error to the host", countPlain, nil},
	dnsOddTypes:    {"dns_odd_types", "count", "the host's queries for records that programs seldom ask for and tunnels use: CNAME, MX, NULL, TXT, KEY, and types above 257", countPlain, nil},
	dnsAny:         {"dns_any", "count", "the host's queries for ANY", countPlain, nil},
	dnsLong:        {"dns_long", "count", "the host's queries for names with more than 40 bytes below their last two labels", countPlain, nil},
	dnsNameBytes:   {"dns_name_bytes", "bytes", "bytes below the last two labels of the names that the host asked for, each name once while it asks for up to 32", countPlain, nil},
	dnsAnswerBytes: {"dns_answer_bytes", "bytes", "payload of the answers to queries for odd types", countPlain, nil},
	dnsConflicts:   {"dns_conflicts", "count", "answers that the host sent to a query that already had one with other addresses", countPlain, nil},
	inDNSQueries:   {"in_dns_queries", "count", "DNS queries sent to the host", countPlain, nil},
	inDNSUnasked:   {"in_dns_unasked", "count", "DNS answers to the host that none of the last four queries of their flow asked for; not in the first 5 s of the traffic", countPlain, nil},
	inDNSConflicts: {"in_dns_conflicts", "count", "answers to the host's queries after another with other addresses", countPlain, nil},
	dnsNames:       {"dns_names", "count", "distinct names that the host asked for", countDistinct, nil},
	dnsMostBytes:   {"dns_most_bytes", "bytes", "the most dns_name_bytes under one parent, the last two labels", countMost, nil},
	dnsMostNames:   {"dns_most_names", "count", "the most names under one parent, counted like dns_name_bytes", countMost, nil},
}}

var dnsPorts = []servicePort{{capture.ProtoUDP, portDNS}}

// dnsTalk is what is kept of one UDP flow to a DNS server: the last queries. A resolver asks for A and AAAA from one
// port before either is answered, and a tunnel keeps some more under way.
type dnsTalk struct {
	queries [4]dnsQuery
	next    uint8 // of queries, the one that the next query takes
}

// dnsQuery is a query and its answers.
type dnsQuery struct {
	id      uint16
	asked   bool
	odd     bool   // it asks for an odd type
	answers uint8  // so far
	data    uint64 // of the first answer with addresses: their hashes' sum
}

type dnsApp struct {
	talks pool[dnsTalk]
	name  dnsName
}

func newDNSApp() app { return &dnsApp{talks: pool[dnsTalk]{limit: 1 << 13}} }

func (a *dnsApp) begin() int32 { return a.talks.get() }

func (a *dnsApp) end(x *exchange) { a.talks.put(x.ref) }

func (a *dnsApp) packet(x *exchange) {
	message := x.payload
	if x.packet.Whole != nil {
		message = x.packet.Whole
	} else if x.packet.Fragment {
		return // the message comes whole with its last fragment
	}
	response, code, ok := dnsHeader(message)
	if !ok {
		return
	}
	t, did := a.talks.at(x.ref), x.did(groupDNS)
	id := binary.BigEndian.Uint16(message)
	if response {
		if x.side != responder {
			return
		}
		a.answer(x, t.find(id), did, code, message)
		return
	}
	if x.side != originator {
		return
	}
	did.add(dnsQueries, 1)
	x.got(groupDNS).add(inDNSQueries, 1)
	q := t.find(id)
	if q == nil {
		q = &t.queries[t.next]
		t.next = (t.next + 1) % uint8(len(t.queries))
	}
	*q = dnsQuery{id: id, asked: true}
	if !a.name.parse(message[dnsHeaderLen:]) {
		return
	}
	name, parent := a.name.octets[:a.name.length], a.name.octets[a.name.parent:a.name.length]
	typ := binary.BigEndian.Uint16(message[dnsHeaderLen+questionName(message[dnsHeaderLen:]):])
	switch {
	case typ == 255:
		did.add(dnsAny, 1)
	case typ == 5 || typ == 10 || typ == 15 || typ == 16 || typ == 25 || typ > 257:
		q.odd = true
		did.add(dnsOddTypes, 1)
	}
	below := uint32(max(int(a.name.parent)-1, 0))
	if below > 40 {
		did.add(dnsLong, 1)
	}
	if !did.distinct(dnsNames, x.hosts.key.bytes(name)) {
		return
	}
	did.add(dnsNameBytes, below)
	under := x.hosts.key.bytes(parent)
	did.most(dnsMostBytes, under, below)
	did.most(dnsMostNames, under, 1)
}

// questionName is the length of the name that a parsed question begins with.
func questionName(b []byte) int {
	n := 0
	for b[n] != 0 {
		n += 1 + int(b[n])
	}
	return n + 1
}

// find returns the query of an identifier, nil when there is none.
func (t *dnsTalk) find(id uint16) *dnsQuery {
	for k := range t.queries {
		if q := &t.queries[k]; q.asked && q.id == id {
			return q
		}
	}
	return nil
}

func (a *dnsApp) answer(x *exchange, q *dnsQuery, did deed, code uint8, message []byte) {
	if q == nil {
		if x.hosts.now >= x.hosts.began+hostWarm {
			did.add(inDNSUnasked, 1)
		}
		return
	}
	switch code {
	case 0:
	case nxdomain:
		did.add(dnsNXDomain, 1)
	default:
		did.add(dnsFailed, 1)
	}
	if q.odd {
		did.add(dnsAnswerBytes, uint32(len(message)))
	}
	data, any := dnsAddresses(message)
	if q.answers > 0 && any && q.data != 0 && data != q.data {
		did.add(inDNSConflicts, 1)
		// Who sent it shows in the frame's hardware address: the server's own address is what is forged.
		if m := x.packet.SrcMAC; m != (capture.MAC{}) && !x.hosts.names.isRouter(m) {
			x.hosts.of(x.hosts.onLink(zone(x.packet), m), groupDNS).add(dnsConflicts, 1)
		} else {
			x.got(groupDNS).add(dnsConflicts, 1)
		}
	}
	if any && q.data == 0 {
		q.data = data
	}
	q.answers = min(q.answers, 254) + 1
}

// dnsAddresses sums the hashes of the addresses in a message's answers, whatever their order.
func dnsAddresses(message []byte) (sum uint64, any bool) {
	count := int(binary.BigEndian.Uint16(message[6:]))
	b := message[dnsHeaderLen:]
	n := skipDNSName(b)
	if n < 0 || len(b) < n+4 {
		return 0, false
	}
	b = b[n+4:]
	for range min(count, 64) {
		if n = skipDNSName(b); n < 0 || len(b) < n+10 {
			return sum, any
		}
		typ, size := binary.BigEndian.Uint16(b[n:]), int(binary.BigEndian.Uint16(b[n+8:]))
		if b = b[n+10:]; len(b) < size {
			return sum, any
		}
		if typ == 1 && size == 4 || typ == 28 && size == 16 {
			sum, any = sum+(hashOctets(b[:size])|1), true
		}
		b = b[size:]
	}
	return sum, any
}

// skipDNSName is the length of a name, which may be compressed; -1 when b does not hold all of it.
func skipDNSName(b []byte) int {
	for n := 0; n < len(b); {
		switch size := int(b[n]); {
		case size == 0:
			return n + 1
		case size >= 0xc0:
			if n+2 > len(b) {
				return -1
			}
			return n + 2
		case size > 63:
			return -1
		default:
			n += 1 + size
		}
	}
	return -1
}
