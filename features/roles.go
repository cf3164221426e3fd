package features

import (
	"encoding/binary"
	"math/bits"

	"github.com/picket-ids/picket/capture"
)

// A Role says by what evidence the client of a connection was told from its server.
type Role uint8

// Roles, the best evidence first.
const (
	RoleHandshake Role = iota // a SYN, SYN-ACK, SCTP INIT, echo request, or an answer to one of them
	RoleKept                  // the connection's role before its timeout
	RoleGroup                 // the query goes to a multicast or broadcast address
	RoleRejected              // one side sent only resets or ICMP errors
	RoleSpread                // one source port tries many ports or hosts, most of which do not answer
	RoleServed                // one side is known to serve at its port
	RolePort                  // a well-known or registered port against an ephemeral one
	RoleFirst                 // the first sender
	NumRoles
)

var roleNames = [NumRoles]string{"handshake", "kept", "group", "rejected", "spread", "served", "port", "first"}

func (r Role) String() string { return roleNames[r] }

const (
	// predateSpan is how long after its first packet a capture may meet UDP that is
	// older than it: the timeout of such a connection.
	predateSpan = 60 * second
	// answerSpan is how long after a query to a group its answers may come. Searches
	// of SSDP wait for 5 s at most, DHCP clients ask again after 4 s, then 8 s.
	answerSpan = 10 * second
	// answerWait is how long after its first packet a UDP connection or a ping fails
	// when no answer has come.
	answerWait = second

	maxServed  = 4096 // endpoints that are remembered as servers
	maxQueries = 1024 // endpoints that asked a group, and groups asked
	// spreadPeers is how many ports or hosts an endpoint may try in vain and still be
	// taken for a server: a capture that begins while a busy one closes its connections
	// has some last ACKs.
	spreadPeers = 16
	// unaskedPeers, of 64 bits set, are 63 servers that send to one address that asked none
	// of them: an amplification attack, and not answers to queries before the capture.
	unaskedPeers = 40
)

// What the sides of a connection have sent, bits of conn.said, shifted by the side.
const (
	spoke uint8 = 1      // a packet that is no reset, no SYN-ACK and no ICMP error
	paid  uint8 = 1 << 2 // payload
)

// roles is what is known of who serves what. All tables are bounded.
type roles struct {
	began   int64 // ns, the first packet
	started bool
	past    past
	spread  spread
	served  *lru[endpoint, served]
	queries *lru[endpoint, groupQuery]
	counts  [NumRoles]uint64
	unsure  uint64
}

func newRoles() *roles {
	return &roles{served: newLRU[endpoint, served](maxServed), queries: newLRU[endpoint, groupQuery](maxQueries)}
}

// reset forgets all but the counters.
func (r *roles) reset() {
	r.started = false
	r.past, r.spread = past{}, spread{}
	r.served.reset()
	r.queries.reset()
}

// endpoint is an address and a port of it. Port 0 stands for the address.
type endpoint struct {
	addr  capture.Addr
	vni   uint32
	port  uint16
	proto uint8
}

func (e *endpoint) hash() uint64 {
	return mix(hashAddr(&e.addr), uint64(e.vni)<<24|uint64(e.port)<<8|uint64(e.proto))
}

// sum is a hash of e that is the same in every process.
func (e *endpoint) sum() uint64 {
	return sumAddr(&e.addr, uint64(e.vni)<<24|uint64(e.port)<<8|uint64(e.proto))
}

func sumAddr(a *capture.Addr, x uint64) uint64 {
	le := binary.LittleEndian
	return avalanche(avalanche(le.Uint64(a[:8])*0x9e3779b97f4a7c15+le.Uint64(a[8:])) + x)
}

// endpoint returns one side of c.
func (c *conn) endpoint(side int) endpoint {
	return endpoint{c.addr(side), c.key.vni, c.port(side), c.key.proto}
}

// served is what is known of an endpoint that answers.
type served struct {
	peer  uint64 // the first one's sum
	known bool   // it answered a SYN with data, or two peers
}

// past remembers connections that ended, the last 8 of each set: 29 bits of the hash of the
// key, and what is known of it. 100,000 live ones that take turns in the tracker's table
// find room.
type past [1 << 15][8]uint32

const (
	pastHiFirst uint32 = 1 << iota // hi was the client
	pastSure                       // that is known
	pastEvicted                    // it ended for want of room, and may go on
	pastBits    = pastHiFirst | pastSure | pastEvicted
)

// set returns the set of a key and its word there, with all of pastBits.
func (p *past) set(k *connKey) (set *[8]uint32, word uint32) {
	sum := sumAddr(&k.lo, uint64(k.loPort)<<16|uint64(k.hiPort))
	sum = sumAddr(&k.hi, sum^uint64(k.vni)<<8^uint64(k.proto))
	return &p[sum>>49], uint32(sum) | pastBits
}

// find returns the bits of a connection, 0 when it is not known.
func (p *past) find(k *connKey) uint32 {
	set, word := p.set(k)
	for _, w := range set {
		if w|pastBits == word {
			return w & pastBits
		}
	}
	return 0
}

func (p *past) put(k *connKey, bits uint32) {
	set, word := p.set(k)
	n := 0
	for n < len(set)-1 && set[n]|pastBits != word {
		n++
	}
	copy(set[1:n+1], set[:n])
	set[0] = word&^pastBits | bits
}

// keep remembers c, which ends: its role if both sides have spoken, and that it may come
// back if it was evicted and is more than a SYN without an answer.
func (r *roles) keep(c *conn, evicted bool) {
	const both = spoke<<originator | spoke<<responder
	var bits uint32
	if c.said&both == both && !c.unsure || c.role == RoleKept {
		bits |= pastSure
	}
	if evicted && c.class != synSent {
		bits |= pastEvicted
	}
	if bits == 0 || c.role == RoleGroup || c.isICMP() {
		return
	}
	if c.hiFirst {
		bits |= pastHiFirst
	}
	r.past.put(&c.key, bits)
}

// spread counts whom endpoints send to first, and who of these answers. What has
// tried few peers makes room for others, so that packets of made-up sources do not
// hide a scan.
type spread [2048][4]spreadEntry

type spreadEntry struct {
	tag             uint32
	since           int32  // s, when it began
	peers           uint64 // a bit for the hash of each
	tried, answered uint32 // connections
}

// vain reports whether most of those that e tries do not answer.
func (e *spreadEntry) vain() bool {
	return bits.OnesCount64(e.peers) >= spreadPeers && e.answered <= e.tried/2
}

// find returns the entry of an endpoint by its sum, nil when there is none.
func (s *spread) find(sum uint64, now int64) *spreadEntry {
	set := &s[sum>>53]
	for k := range set {
		if e := &set[k]; e.peers != 0 && e.tag == uint32(sum) && !e.old(now) {
			return e
		}
	}
	return nil
}

func (e *spreadEntry) old(now int64) bool { return now/second-int64(e.since) >= longSpan/second }

// use is find, and makes an entry when there is none.
func (s *spread) use(sum uint64, now int64) *spreadEntry {
	if e := s.find(sum, now); e != nil {
		return e
	}
	set := &s[sum>>53]
	least := &set[0]
	for k := range set {
		e := &set[k]
		if e.old(now) {
			least = e
			break
		}
		if a, b := bits.OnesCount64(e.peers), bits.OnesCount64(least.peers); a < b || a == b && e.since < least.since {
			least = e
		}
	}
	*least = spreadEntry{tag: uint32(sum), since: int32(now / second)}
	return least
}

func peerBit(e *endpoint) uint64 { return 1 << (e.sum() & 63) }

// groupQuery is a question to a group: the group for its asker, the asker for the group.
type groupQuery struct {
	other endpoint
	at    int64 // ns, the last one
}

// asked remembers that c's client sent to its group.
func (r *roles) asked(c *conn, now int64) {
	asker, group := c.endpoint(originator), c.endpoint(responder)
	for range 2 {
		q, _ := r.queries.use(&asker, asker.hash())
		q.other, q.at = group, now
		asker, group = group, asker
	}
}

// answers makes k the key of the connection whose query to a group p answers, and returns
// whether it does and whether the group is the key's hi. p belongs to no connection.
func (r *roles) answers(k *connKey, p *capture.Packet, now int64) (hi, ok bool) {
	if r.queries.table.len() == 0 {
		return false, false
	}
	to := endpoint{p.Dst, k.vni, p.DstPort, p.Proto}
	switch {
	case p.SrcPort == portDHCPServer && p.DstPort == portDHCPClient:
		to.addr = anyIPv4 // which it asked from
	case isGroup(&p.Dst) && !groupAnswer(p):
		return false, false
	}
	q := r.queries.peek(&to, to.hash())
	if q == nil || now-q.at > answerSpan {
		return false, false
	}
	asker, group := to, q.other
	if isGroup(&to.addr) {
		asker, group = group, asker
	} else if portRanks[asker.port] >= knownPort && p.SrcPort != group.port {
		return false, false // others than the group's members send there, too
	}
	a, g := end{asker.addr, asker.port}, end{group.addr, group.port}
	return k.set(&g, &a, p, p.Proto), true
}

const (
	portDHCPServer = 67
	portDHCPClient = 68
	portMDNS       = 5353
	portLLMNR      = 5355
	portNBNS       = 137
)

// groupAnswer reports whether p, to a group, is a response of mDNS, LLMNR or NBNS.
func groupAnswer(p *capture.Packet) bool {
	return (p.DstPort == portMDNS || p.DstPort == portLLMNR || p.DstPort == portNBNS) && p.Proto == capture.ProtoUDP &&
		len(p.Payload) > 2 && p.Payload[2]&0x80 != 0
}

// anyIPv4 is 0.0.0.0, from which hosts without an address send.
var anyIPv4 = capture.Addr{10: 0xff, 11: 0xff}

// isGroup reports whether a is a multicast or broadcast address. The masks of networks
// are not known: of private ones, 255 in the last place is taken for a broadcast.
func isGroup(a *capture.Addr) bool {
	if a[0] == 0xff {
		return true
	}
	if binary.BigEndian.Uint64(a[:8]) != 0 || binary.BigEndian.Uint32(a[8:]) != 0xffff {
		return false
	}
	private := a[12] == 10 || a[12] == 172 && a[13]&0xf0 == 16 || a[12] == 192 && a[13] == 168 || a[12] == 169 && a[13] == 254
	return a[12]&0xf0 == 224 || a[15] == 255 && (private || binary.BigEndian.Uint32(a[12:]) == 1<<32-1)
}

// begin gives c, which k names and p opens, the role that is likely. hi tells that p
// comes from k's hi.
func (r *roles) begin(c *conn, p *capture.Packet, hi bool, now int64) {
	if !r.started {
		r.began, r.started = now, true
	}
	c.hiFirst = hi
	switch p.Proto {
	case capture.ProtoTCP:
		switch flags := p.Flags & (capture.SYN | capture.ACK | capture.RST); {
		case flags == capture.SYN:
			return
		case flags == capture.SYN|capture.ACK:
			c.hiFirst = !hi
			return
		case isReset(p.Flags):
			c.hiFirst = !hi
			c.role = RoleRejected
			return
		default:
			c.predates = flags&capture.ACK != 0 || p.FragmentOffset > 0
		}
	case capture.ProtoICMP, capture.ProtoICMPv6:
		switch {
		case isEcho(p.Proto, p.ICMPType):
			c.hiFirst = hi == (p.ICMPType == 8 || p.ICMPType == 128)
			return
		case isICMPError(p):
			c.hiFirst = !hi
			c.role = RoleRejected
			return
		}
	case capture.ProtoSCTP:
		if len(p.Payload) > 0 && (p.Payload[0] == sctpInit || p.Payload[0] == sctpInitAck) && p.FragmentOffset == 0 {
			c.hiFirst = hi == (p.Payload[0] == sctpInit)
			return
		}
		fallthrough
	default:
		c.predates = now-r.began < predateSpan
	}
	if known := r.past.find(&c.key); known != 0 {
		c.hiFirst, c.back = known&pastHiFirst != 0, known&pastEvicted != 0
		if c.role = RoleFirst; known&pastSure != 0 {
			c.role = RoleKept
		}
		return
	}
	if isGroup(&p.Dst) {
		c.role, c.unsure = RoleGroup, groupAnswer(p)
		return
	}
	c.role = RoleFirst
	if !hasPorts(p.Proto) {
		return
	}
	from, to := c.endpoint(originator), c.endpoint(responder)
	e := r.spread.use(from.sum(), now)
	e.peers |= peerBit(&to)
	e.tried++
	switch serves := r.serves(&from); {
	case e.vain():
		c.role = RoleSpread
	case serves != r.serves(&to):
		c.role = RoleServed
		c.hiFirst = hi != serves
	case c.predates && portRanks[from.port] != portRanks[to.port]:
		c.role = RolePort
		c.hiFirst = hi == (portRanks[from.port] < portRanks[to.port])
	}
}

const (
	sctpInit    = 1 // chunks (RFC 9260)
	sctpInitAck = 2
)

func hasPorts(proto uint8) bool {
	return proto == capture.ProtoTCP || proto == capture.ProtoUDP || proto == capture.ProtoSCTP
}

func (r *roles) serves(e *endpoint) bool {
	s := r.served.peek(e, e.hash())
	return s != nil && s.known
}

// said takes what side of c, by the bits of conn.said, says for the first time.
func (r *roles) said(c *conn, side int, bits uint8, now int64) {
	handshake := c.role == RoleHandshake && c.key.proto == capture.ProtoTCP
	if !hasPorts(c.key.proto) || c.role == RoleGroup || c.back || handshake && (side == originator || c.said&(paid<<responder) == 0) {
		return
	}
	from, to := c.endpoint(side), c.endpoint(1-side)
	if !handshake {
		// In TCP data is no probe, whoever sends it.
		first := c.endpoint(c.first())
		answered := bits>>side&paid != 0
		if c.key.proto == capture.ProtoTCP {
			answered = answered && c.said == bits || bits>>side&spoke != 0 && side != c.first()
		} else {
			answered = answered && side != c.first()
		}
		if e := r.spread.find(first.sum(), now); answered && e != nil {
			e.answered++
		}
	}
	// A connection that may be older than the capture and whose role is a guess teaches nothing.
	if side != responder || c.said&(paid<<responder) == 0 || c.role == RoleFirst && c.predates {
		return
	}
	if !handshake && c.said&(paid<<originator) == 0 {
		return
	}
	s, isNew := r.served.use(&from, from.hash())
	peer := to.sum()
	if isNew {
		s.peer = peer
	}
	s.known = s.known || handshake || s.peer != peer
}

// settle gives c the role that its packets so far show, and reports whether the sides
// change their places.
func (r *roles) settle(c *conn, now int64) (swap bool) {
	swap = r.judge(c, now)
	if !c.settled {
		c.settled = true
		r.counts[c.role]++
		if c.unsure {
			r.unsure++
		}
	}
	return swap
}

func (r *roles) judge(c *conn, now int64) (swap bool) {
	a, b := c.said&(spoke<<originator) != 0, c.said&(spoke<<responder) != 0
	switch c.role {
	case RoleHandshake, RoleKept:
		c.unsure = !a && c.tcp&sawSYN == 0 // a client that is not seen to have sent anything
		return false
	case RoleGroup:
		return false
	}
	switch {
	case !a && !b: // only resets or errors
		c.role, c.unsure = RoleRejected, true
		return false
	case a && b:
		return r.judgeBoth(c, now)
	}
	// One side has spoken. It is x, and was the first unless a reset came before it.
	x := originator
	if b {
		x = responder
	}
	from, to := c.endpoint(x), c.endpoint(1-x)
	c.unsure = false
	rejected := c.tcp&(rstOriginator<<(1-x)) != 0 || c.icmpErrors > 0
	switch {
	case rejected && !c.predates:
		c.role = RoleRejected
		return x == responder
	case !hasPorts(c.key.proto):
		c.role = RoleFirst
		return x == responder
	}
	e := r.spread.find(from.sum(), now)
	if e != nil && e.vain() {
		c.role = RoleSpread
		return x == responder
	}
	fromRank, toRank := portRanks[from.port], portRanks[to.port]
	serves := r.serves(&from)
	switch byPort := c.predates && fromRank != toRank && max(fromRank, toRank) >= knownPort; {
	case rejected && !(byPort && fromRank > toRank): // which may be the rest of an older connection
		c.role = RoleRejected
		return x == responder
	case serves != r.serves(&to):
		c.role = RoleServed
	case byPort:
		c.role, serves = RolePort, fromRank > toRank
	default:
		c.role = RoleFirst
		return x == responder
	}
	if !serves {
		return x == responder
	}
	// x serves one that it was not seen to be asked by, or it is one of the many whose
	// answers somebody else has asked for.
	to.port = 0
	u := r.spread.use(to.sum(), now)
	u.peers |= peerBit(&from)
	if bits.OnesCount64(u.peers) >= unaskedPeers {
		c.role = RoleFirst
		return x == responder
	}
	c.unsure = true
	return x == originator
}

// judgeBoth is judge for a connection whose sides have both spoken.
func (r *roles) judgeBoth(c *conn, now int64) (swap bool) {
	if !hasPorts(c.key.proto) {
		c.role, c.unsure = RoleFirst, c.predates
		return c.firstHi != c.hiFirst
	}
	first := c.first()
	from, to := c.endpoint(first), c.endpoint(1-first)
	c.unsure = false
	if e := r.spread.find(from.sum(), now); e != nil && e.vain() {
		c.role = RoleSpread
		return first == responder
	}
	fromRank, toRank := portRanks[from.port], portRanks[to.port]
	serves := r.serves(&from) // the first sender
	both := c.said&(paid<<originator) != 0 && c.said&(paid<<responder) != 0
	switch {
	case serves != r.serves(&to):
		c.role = RoleServed
	case (c.predates || both) && fromRank != toRank:
		c.role, serves = RolePort, fromRank > toRank
		c.unsure = c.predates && max(fromRank, toRank) < knownPort
	default:
		c.role, c.unsure, serves = RoleFirst, c.predates, false
	}
	return serves == (first == originator)
}

// first returns the side that sent the first packet.
func (c *conn) first() int {
	if c.firstHi == c.hiFirst {
		return originator
	}
	return responder
}

// swap makes the client of c its server, in what its sides have sent.
func (c *conn) swap() {
	c.hiFirst = !c.hiFirst
	c.dir[0], c.dir[1] = c.dir[1], c.dir[0]
	c.said = c.said&0b0101<<1 | c.said&0b1010>>1
	both := c.tcp & (finBoth | rstAny)
	c.tcp = c.tcp&^both | both&(finOriginator|rstOriginator)<<1 | both&(finResponder|rstResponder)>>1
}

// isReset reports whether a TCP packet is a reset, and not one with flags that make no sense.
func isReset(flags uint8) bool { return flags&(capture.RST|capture.SYN|capture.FIN) == capture.RST }

// isICMPError reports whether p is an error or a redirect, which some packet caused.
func isICMPError(p *capture.Packet) bool {
	switch p.Proto {
	case capture.ProtoICMP:
		return p.ICMPType == 3 || p.ICMPType == 4 || p.ICMPType == 5 || p.ICMPType == 11 || p.ICMPType == 12
	case capture.ProtoICMPv6:
		return p.ICMPType < 128 || p.ICMPType == 137
	}
	return false
}

// saying returns the bits of said that p, from side, has.
func saying(p *capture.Packet, side int) (bits uint8) {
	switch {
	case p.Proto == capture.ProtoTCP:
		if isReset(p.Flags) {
			return 0
		}
		if p.Flags&(capture.SYN|capture.ACK) != capture.SYN|capture.ACK {
			bits = spoke
		}
	case isICMPError(p):
		return 0
	default:
		bits = spoke
	}
	if p.PayloadLen > 0 {
		bits |= paid
	}
	return bits << side
}

// handshake takes p, a SYN or SYN-ACK from c's hi or lo, for evidence of c's role, and
// reports whether the sides change their places.
func (c *conn) handshake(p *capture.Packet, hi bool) (swap bool) {
	swap = c.hiFirst != (hi == (p.Flags&capture.ACK == 0))
	c.role, c.unsure = RoleHandshake, false
	return swap
}

// unanswered reports whether c asked by UDP or a ping and had no answer for answerWait.
func (c *conn) unanswered(now int64) bool {
	return (c.key.proto == capture.ProtoUDP && c.role != RoleGroup || c.isICMP() && isEcho(c.key.proto, c.icmpType)) &&
		c.said&(spoke<<originator|spoke<<responder) == spoke<<originator && now-c.start >= answerWait
}

// knownPort is the least rank of a port that is known to belong to a service.
const knownPort = 2

// portRanks orders ports by how likely a server has them: 3 for one below 1024 that
// has a name, 2 for the others below 1024 and those with a name, 1 for other registered
// ones below the ephemeral ones of Linux (32768), 0 for the rest.
var portRanks = func() (ranks [1 << 16]uint8) {
	for port := range ranks {
		switch {
		case port == 0:
		case port < 1024:
			ranks[port] = 2
		case port < 32768:
			ranks[port] = 1
		}
	}
	name := func(port uint16) {
		ranks[port] = 2
		if port < 1024 {
			ranks[port] = 3
		}
	}
	for _, ports := range []map[uint16]string{serviceNames, kddTCP, kddUDP} {
		for port := range ports {
			name(port)
		}
	}
	for _, port := range registeredPorts {
		name(port)
	}
	ranks[portDHCPClient], ranks[546] = 2, 2 // their servers have 67 and 547
	return ranks
}()

// registeredPorts are those of common services beside the ones that have a name here.
var registeredPorts = []uint16{
	1099, 1194, 1434, 1494, 1645, 1646, 1700, 1701, 1812, 1813, 1935, 2000, 2049, 2055, 2082, 2083, 2086, 2087,
	2181, 2222, 2323, 2375, 2376, 2379, 2380, 2404, 2775, 3000, 3128, 3260, 3269, 3478, 3479, 3544, 3689, 3690,
	3702, 3784, 4369, 4443, 4711, 4712, 4713, 4739, 4789, 5000, 5001, 5009, 5094, 5201, 5222, 5223, 5228, 5269,
	5349, 5350, 5351, 5357, 5431, 5500, 5555, 5601, 5671, 5672, 5678, 5938, 5985, 5986, 6000, 6001, 6081, 6343,
	6443, 6514, 6653, 6666, 6668, 6881, 7000, 7070, 7680, 7777, 8000, 8008, 8009, 8081, 8086, 8088, 8090, 8123,
	8181, 8200, 8222, 8333, 8472, 8500, 8554, 8686, 8888, 9000, 9001, 9009, 9042, 9080, 9090, 9092, 9093, 9200,
	9292, 9300, 9418, 9443, 9600, 9999, 10000, 10001, 10050, 10051, 10443, 11211, 15672, 17500, 18083, 19132,
	20808, 25565, 27015, 27017, 30303, 34962, 34963, 34964, 37777, 41641, 51820, 56700, 61613, 61616,
	portDiameterDTLS,
}
