package features

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/picket-ids/picket/capture"
)

// ConnectionRow is a row of a connection.
const ConnectionRow RowKind = "connection"

var connectionKind = rowKind{
	name: ConnectionRow,
	groups: [][]Feature{
		basicGroup, timeGroup, hostGroup, contentGroup, telecomGroup, signallingGroup, flowGroup, behaviourGroup, dnsFeatures,
	},
	identity: flowIdentity,
	open:     newConnectionRows,
}

// Timeouts on the packet clock, in nanoseconds.
const (
	second        = int64(1e9)
	activeTimeout = 60 * second
	// maxTime bounds what is believed of a capture's clock: deadlines past it
	// must not overflow.
	maxTime = 1 << 62
)

// timeout classes; each has a list of its connections in the order of their
// deadlines, which is that of their last renewal.
type class uint8

const (
	synSent     class = iota // TCP, nothing but SYNs of the originator's
	opening                  // TCP, not established or seen from its middle
	established              // TCP
	closed                   // TCP, since the last FIN or RST
	datagram                 // UDP and all but TCP and ICMP
	icmp
	numClasses
	// active is the list of all connections by the next row they owe while
	// they last, early that of those which owe one ahead of their timeout.
	active   = numClasses
	early    = numClasses + 1
	numLists = numClasses + 2
)

var timeouts = [numClasses + 1]int64{
	synSent: 5 * second, opening: 120 * second, established: 300 * second, closed: 2 * second,
	datagram: 60 * second, icmp: 10 * second, active: activeTimeout,
}

// connKey names a connection, the same in both directions: the lower of its two
// ends comes first.
type connKey struct {
	lo, hi         capture.Addr
	loPort, hiPort uint16
	proto          uint8
	vni            uint32 // of VXLAN and Geneve, 0 without; TEIDs differ by direction
}

// hashKey has each field in bits of its own: ports and the rest come behind the seed,
// where no bits of an address, which a sender may choose, undo theirs.
func hashKey(k *connKey) uint64 {
	le := binary.LittleEndian
	a := mix(le.Uint64(k.lo[:8]), le.Uint64(k.lo[8:])) ^ uint64(k.loPort)<<16 ^ uint64(k.hiPort)
	b := mix(le.Uint64(k.hi[:8]), le.Uint64(k.hi[8:])) ^ uint64(k.vni)<<8 ^ uint64(k.proto)
	return mix(a, b)
}

// end is one end of a packet or connection.
type end struct {
	addr capture.Addr
	port uint16
}

// set makes k the key of a packet from src to dst and returns whether src is its hi.
func (k *connKey) set(src, dst *end, p *capture.Packet, proto uint8) (hi bool) {
	if hi = dst.less(src); hi {
		src, dst = dst, src
	}
	k.lo, k.hi, k.loPort, k.hiPort, k.proto = src.addr, dst.addr, src.port, dst.port, proto
	if p.Tunnel == capture.TunnelVXLAN || p.Tunnel == capture.TunnelGeneve {
		k.vni = p.TunnelID
	}
	return hi
}

func (e *end) less(f *end) bool {
	be := binary.BigEndian
	if a, b := be.Uint64(e.addr[:8]), be.Uint64(f.addr[:8]); a != b {
		return a < b
	}
	if a, b := be.Uint64(e.addr[8:]), be.Uint64(f.addr[8:]); a != b {
		return a < b
	}
	return e.port < f.port
}

// direction is what one side of a connection has sent.
type direction struct {
	wire      uint64 // octets of its frames since the last row
	payload   uint64 // octets, each counted once
	packets   uint32 // since the last row
	next      uint32 // TCP: sequence number after the highest seen
	missing   uint32 // TCP: octets below next that were not seen
	sequenced bool   // next is valid
}

// conn is the state of one connection. It holds no pointers.
type conn struct {
	key        connKey
	number     uint64 // Row's Connection
	hiFirst    bool   // the originator is key.hi
	firstHi    bool   // key.hi sent the first packet
	role       Role
	unsure     bool  // see Row
	settled    bool  // role is that of the packets, and not just of the first
	predates   bool  // may be older than the capture
	said       uint8 // by its sides: see spoke and paid
	back       bool  // it was evicted, and its row has been made
	class      class
	tcp        uint16
	isn        uint32
	icmpType   uint8 // of the packet that opened it
	icmpCode   uint8
	tunnel     capture.TunnelKind
	waits      bool    // in the list early
	looked     [2]bool // has had its early row: before it closed, since
	counted    bool    // in the windows
	start      int64
	last       int64 // ns, the last packet
	dir        [2]direction
	rows       uint32 // made so far
	wrongFrags uint32
	urgent     uint32
	icmpErrors uint32 // ICMP errors that quote it and say that it cannot be delivered
	links      [3]link
}

// link chains a connection into a list: links[0] that of its class, links[1]
// that of the active timeout, links[2] that of early rows.
type link struct {
	due        int64 // ns, its deadline
	prev, next int32 // -1 at the ends
}

// addr returns the address of one side.
func (c *conn) addr(side int) capture.Addr {
	if (side == originator) == c.hiFirst {
		return c.key.hi
	}
	return c.key.lo
}

func (c *conn) port(side int) uint16 {
	if (side == originator) == c.hiFirst {
		return c.key.hiPort
	}
	return c.key.loPort
}

func (c *conn) isICMP() bool { return isICMP(c.key.proto) }

// servicePort is the port that names c's service; ICMP has type and code.
func (c *conn) servicePort() uint16 {
	if c.isICMP() {
		return uint16(c.icmpType)<<8 | uint16(c.icmpCode)
	}
	return c.port(responder)
}

// sourcePort is the originator's port, 0 for ICMP.
func (c *conn) sourcePort() uint16 {
	if c.isICMP() {
		return 0
	}
	return c.port(originator)
}

// list is a queue of connections by deadline.
type list struct{ head, tail int32 }

// A Row is one vector of features and the connection it is of.
type Row struct {
	Kind       RowKind
	Time       int64 // ns since the Unix epoch, when the row was made, on the packet clock
	Start, End int64 // ns, first and last packet of the connection
	// Src is the client of the connection, by the evidence that Role names.
	Src, Dst capture.Addr
	Role     Role
	// Unsure: the capture may have begun in the middle of the connection and its role is a
	// guess, or the client was not seen to send anything. Such a row accuses nobody.
	Unsure           bool
	SrcPort, DstPort uint16 // 0 for ICMP
	Proto            uint8  // IP protocol number
	ICMPType         uint8  // of the packet that opened it
	ICMPCode         uint8
	Flag             Flag
	// Tunnel is that of the connection's first packet, with the addresses outside.
	Tunnel   capture.TunnelKind
	TunnelID uint32
	OuterSrc capture.Addr
	OuterDst capture.Addr
	// Refused: no answer, or one that refuses: S0, REJ, RSTOS0, SH, ICMP unreachable only,
	// UDP or a ping without an answer for a second.
	Refused bool
	// Packets and Octets count frames on the wire since the connection's last
	// row: from the initiator, from the responder.
	Packets, Octets [2]uint64
	Connection      uint64   // number of the connection within its Tracker, from 1; 0 for a row that is not of a connection
	Serial          int      // 0 for the first row of the connection
	Ended           bool     // false for the row of a connection that goes on
	Host            HostName // of a host's row: what it is of; Src is its latest address
	// Values holds the columns that the tracker was asked for, in their order.
	// They are valid until the callback returns.
	Values []float32
}

// Silent reports whether nothing came since the connection's row before, so that this
// one says nothing new.
func (r *Row) Silent() bool { return r.Serial > 0 && r.Packets == [2]uint64{} }

// Config says what an Extractor computes and how much it may hold. A kind of row
// ignores what it has no use for.
type Config struct {
	// Columns names the features of a row, in order.
	Columns []string
	// MaxConnections bounds the connections tracked at a time; 0 means
	// DefaultMaxConnections. Past it the one idle longest gives its row early.
	MaxConnections int
	// MaxSources bounds the source addresses that rows of packets remember at a time; 0
	// means DefaultMaxSources. Past it the one silent longest is forgotten.
	MaxSources int
	// Early, when not 0, is how long a connection that is not established must be
	// quiet to give a row ahead of its timeout: one before it is closed, one
	// after. It counts in the windows from then on. Its last row is Silent unless more
	// came.
	Early time.Duration
	// StepBack is how far the clock of the packets may run back and be taken for packets
	// out of order, for which it stands still; beyond it time starts anew, and all
	// connections give their rows. 0 means DefaultStepBack; a live source keeps its
	// order, and wants a second.
	StepBack time.Duration
	// Home is the networks that are inside, for rows of hosts.
	Home Home
	// Key is that of the sketches which count distinct values in rows of hosts.
	Key SketchKey
}

// DefaultStepBack suits captures whose order nobody knows.
const DefaultStepBack = time.Minute

// DefaultMaxConnections takes about 12 MB when full, and 30 MB with the columns of
// all groups.
const DefaultMaxConnections = 1 << 15

// Stats counts what an Extractor did. What a kind of row has no use for stays 0.
type Stats struct {
	Connections uint64 // begun
	Open        int    // connections being tracked now
	Evicted     uint64 // connections ended early because the table was full
	Returned    uint64 // of these, as often as they came back; they give no row in their first minute
	Rows        uint64
	ClockSteps  uint64 // times that packet time ran back by more than Config.StepBack
	// Roles counts the connections with a row by how their client was found, when they had
	// their first row; Unsure those among them whose row said Unsure.
	Roles  [NumRoles]uint64
	Unsure uint64
	// Forgotten are hosts, sources, victims, pairs of both and domains whose past the columns
	// lost because a table of them was full. Above 7 a second it may be that of the
	// last 10 min, and the columns then say too little.
	Forgotten uint64
}

// Add adds the counters of another Extractor.
func (s *Stats) Add(o Stats) {
	s.Connections += o.Connections
	s.Open += o.Open
	s.Evicted += o.Evicted
	s.Returned += o.Returned
	s.Rows += o.Rows
	s.ClockSteps += o.ClockSteps
	s.Forgotten += o.Forgotten
	for role, n := range o.Roles {
		s.Roles[role] += n
	}
	s.Unsure += o.Unsure
}

// A Tracker is the Extractor of connections: it joins packets into them.
type Tracker struct {
	conns *table[connKey, conn]
	lists [numLists]list
	early int64 // ns, see Config
	back  int64 // ns, Config.StepBack
	now   int64
	due   int64 // no deadline is earlier
	roles *roles
	rows  rower
	emit  func(*Row)
	watch watcher // nil: nobody
	stats Stats
}

func newConnectionRows(cfg Config, columns []column, emit func(*Row)) (Extractor, error) {
	return openConnections(cfg, columns, emit)
}

func openConnections(cfg Config, columns []column, emit func(*Row)) (*Tracker, error) {
	limit := cfg.MaxConnections
	if limit == 0 {
		limit = DefaultMaxConnections
	}
	if limit < 1 || limit > 1<<24 {
		return nil, fmt.Errorf("%d connections at a time: give a number from 1 to %d", limit, 1<<24)
	}
	if cfg.Early < 0 {
		return nil, fmt.Errorf("rows %v early: give a time from 0", cfg.Early)
	}
	back, err := stepBack(cfg.StepBack)
	if err != nil {
		return nil, err
	}
	t := &Tracker{conns: newTable[connKey, conn](limit), early: int64(cfg.Early), back: back, roles: newRoles(), rows: newRower(columns), emit: emit}
	for i := range t.lists {
		t.lists[i] = list{-1, -1}
	}
	return t, nil
}

// stepBack returns a config's StepBack in nanoseconds.
func stepBack(d time.Duration) (int64, error) {
	if d < 0 {
		return 0, fmt.Errorf("a step of %v back: give a time from 0", d)
	}
	return min(int64(cmp.Or(d, DefaultStepBack)), maxTime), nil
}

// Stats returns the counters so far.
func (t *Tracker) Stats() Stats {
	s := t.stats
	s.Roles, s.Unsure = t.roles.counts, t.roles.unsure
	s.Open = t.Open()
	s.Forgotten = t.rows.forgotten()
	return s
}

// Open returns the number of connections being tracked.
func (t *Tracker) Open() int { return t.conns.len() }

// Add takes one packet, after the rows that were due before it.
func (t *Tracker) Add(p *capture.Packet) {
	if p.ARP != nil {
		return // no IP packet
	}
	t.Tick(p.Time)
	src, dst := end{p.Src, p.SrcPort}, end{p.Dst, p.DstPort}
	if isICMP(p.Proto) {
		src.port = icmpPort(p.Proto, p.ICMPType, p.ICMPCode, p.ICMPID)
		dst.port = src.port
	}
	if p.HasQuote && t.addError(p) {
		return
	}
	var k connKey
	hi := k.set(&src, &dst, p, p.Proto)
	hash := hashKey(&k)
	i := t.conns.find(&k, hash)
	if i < 0 && p.Proto == capture.ProtoUDP {
		if ghi, ok := t.roles.answers(&k, p, t.now); ok {
			hi, hash = ghi, hashKey(&k)
			i = t.conns.find(&k, hash)
		}
	}
	if i >= 0 && p.Proto == capture.ProtoTCP && p.Flags&(capture.SYN|capture.RST) == capture.SYN {
		c := t.conns.at(i)
		if p.Flags&capture.ACK == 0 && c.reused(p, hi) {
			t.end(i, t.now)
			i = -1
		} else if c.role != RoleHandshake && c.handshake(p, hi) {
			t.swap(i, c)
		}
	}
	if i < 0 {
		i = t.open(&k, hash, p, hi)
	}
	c := t.conns.at(i)
	if p.Time < c.start { // stored after packets that it came before
		c.start, c.firstHi = max(p.Time, -maxTime), hi
	}
	side := responder
	if hi == c.hiFirst {
		side = originator
	}
	if p.WrongFragment {
		c.wrongFrags++
	}
	t.update(i, c, p, side)
}

// swap makes the client of connection i its server.
func (t *Tracker) swap(i int32, c *conn) {
	c.swap()
	t.rows.swap(i)
	if t.watch != nil {
		t.watch.swap(i)
	}
}

// sequenced reports whether a TCP header of c was seen, and not just fragments.
func (c *conn) sequenced() bool { return c.dir[originator].sequenced || c.dir[responder].sequenced }

// icmpPort stands for both ports of an ICMP connection.
func icmpPort(proto, typ, code uint8, id uint16) uint16 {
	if isEcho(proto, typ) {
		return id
	}
	return uint16(typ)<<8 | uint16(code)
}

func isICMP(proto uint8) bool { return proto == capture.ProtoICMP || proto == capture.ProtoICMPv6 }

func isEcho(proto, typ uint8) bool {
	if proto == capture.ProtoICMP {
		return typ == 0 || typ == 8
	}
	return typ == 128 || typ == 129
}

// addError counts an ICMP error in the connection it quotes, if that is known.
func (t *Tracker) addError(p *capture.Packet) bool {
	q := &p.Quoted
	src, dst := end{q.Src, q.SrcPort}, end{q.Dst, q.DstPort}
	if isICMP(q.Proto) {
		src.port = icmpPort(q.Proto, q.ICMPType, 0, q.ICMPID)
		dst.port = src.port
	}
	var k connKey
	hi := k.set(&src, &dst, p, q.Proto)
	i := t.conns.find(&k, hashKey(&k))
	if i < 0 {
		return false
	}
	c := t.conns.at(i)
	side := originator // of the error: it comes from where the quoted packet went
	if hi == c.hiFirst {
		side = responder
	}
	if undelivered(p) {
		c.icmpErrors++
	}
	c.last = t.now
	c.dir[side].packets++
	c.dir[side].wire += uint64(p.WireLen)
	if t.watch != nil {
		t.watch.quoted(i, c, p)
	}
	return true
}

// undelivered reports whether an ICMP error says that nothing takes what it quotes: a
// destination is unreachable, and not just for packets of that size (RFC 1191).
func undelivered(p *capture.Packet) bool {
	if p.Proto == capture.ProtoICMP {
		return p.ICMPType == 3 && p.ICMPCode != 4
	}
	return p.ICMPType == 1
}

// open begins the connection of p.
func (t *Tracker) open(k *connKey, hash uint64, p *capture.Packet, hi bool) int32 {
	if t.conns.full() {
		t.stats.Evicted++
		t.evict(t.idlest())
	}
	i, _ := t.conns.put(k, hash)
	c := t.conns.at(i)
	c.key, c.start = *k, t.now
	c.icmpType, c.icmpCode = p.ICMPType, p.ICMPCode
	c.firstHi = hi
	t.roles.begin(c, p, hi, t.now)
	if c.back {
		t.stats.Returned++
	}
	c.class = numClasses
	t.stats.Connections++
	c.number = t.stats.Connections
	t.push(active, i, c)
	t.rows.begin(i)
	if c.tunnel = p.Tunnel; p.Tunnel != capture.TunnelNone {
		*t.rows.tunnels.begin(i) = tunnel{p.TunnelID, p.OuterSrc, p.OuterDst}
	}
	if t.watch != nil {
		t.watch.begin(i, c, p)
	}
	return i
}

func (t *Tracker) update(i int32, c *conn, p *capture.Packet, side int) {
	c.last = t.now
	d := &c.dir[side]
	d.packets++
	d.wire += uint64(p.WireLen)
	if said := saying(p, side) &^ c.said; said != 0 {
		c.said |= said
		t.roles.said(c, side, said, t.now)
	}
	if c.role == RoleGroup && side == originator && p.Proto == capture.ProtoUDP {
		t.roles.asked(c, t.now)
	}
	was := c.tcp
	next, renew := datagram, true
	fresh := p.PayloadLen // octets not seen before
	switch {
	case p.Proto == capture.ProtoTCP && (!p.Fragment || p.Flags != 0): // with its header
		if p.Flags&capture.URG != 0 {
			c.urgent++
		}
		fresh = c.track(p, side)
		d.payload += uint64(fresh)
		next, renew = c.tcpClass(p)
	case p.Proto == capture.ProtoTCP:
		d.payload += uint64(p.PayloadLen)
		if next, renew = c.class, false; next == numClasses {
			next = opening
		}
	default:
		if c.isICMP() {
			next = icmp
		}
		d.payload += uint64(p.PayloadLen)
	}
	t.rows.packet(i, c, p, side, t.now, fresh)
	if t.watch != nil {
		t.watch.packet(i, c, p, side, was, fresh)
	}
	if renew || next != c.class {
		if c.class != numClasses {
			t.unlink(c.class, c)
		}
		c.class = next
		t.push(next, i, c)
	}
	if t.early > 0 {
		t.await(i, c)
	}
}

// await gives c the deadline of an early row, if it is to have one.
func (t *Tracker) await(i int32, c *conn) {
	if c.waits {
		t.unlink(early, c)
	}
	c.waits = c.class != established && !c.looked[c.phase()] && !c.back
	if c.waits {
		t.pushAt(early, i, c, t.now+t.early)
	}
}

// phase is 1 for a connection that is closed.
func (c *conn) phase() int {
	if c.class == closed {
		return 1
	}
	return 0
}

// tcpClass returns the timeout class of c after p and whether p renews it.
func (c *conn) tcpClass(p *capture.Packet) (next class, renew bool) {
	switch {
	case c.closed():
		return closed, p.Flags&(capture.FIN|capture.RST) != 0
	case c.tcp&sawOriginAck != 0:
		return established, true
	case c.tcp == sawSYN && p.Flags&capture.SYN != 0 && (c.class == numClasses || c.class == synSent):
		return synSent, true
	}
	return opening, true
}

// Tick moves the packet clock to now, in nanoseconds since the Unix epoch, and
// makes the rows that have come due. Add calls it; a live source calls it too
// while the wire is quiet.
func (t *Tracker) Tick(now int64) {
	now = min(max(now, -maxTime), maxTime)
	switch {
	case now < t.due && now >= t.now:
		t.now = now
		return
	case now < t.now-t.back:
		t.Flush()
		t.stats.ClockSteps++
	case now < t.now:
		return
	}
	t.expire(now)
	t.now = now
}

// Flush makes the rows of all connections, as if the clock ran on for ever, and
// forgets the windows: what follows begins a new time.
func (t *Tracker) Flush() {
	t.expire(1<<63 - 1)
	t.roles.reset()
	t.rows.reset()
	t.now = -maxTime
}

// expire makes the rows due by now, in the order of their deadlines.
func (t *Tracker) expire(now int64) {
	for {
		first, due := numClasses, int64(1<<63-1)
		for l := range t.lists {
			if h := t.lists[l].head; h >= 0 {
				if d := t.conns.at(h).link(class(l)).due; d < due {
					first, due = class(l), d
				}
			}
		}
		t.due = due
		if due > now || due == 1<<63-1 {
			return
		}
		i := t.lists[first].head
		c := t.conns.at(i)
		switch first {
		default:
			t.end(i, due)
			continue
		case early:
			t.unlink(early, c)
			c.waits, c.looked[c.phase()] = false, true
			t.row(i, c, due, false)
			continue
		case active:
		}
		t.unlink(active, c)
		t.pushAt(active, i, c, due+activeTimeout)
		// A connection silent for half of its timeout is more likely over than
		// going on, as most DNS lookups are: its last row will say as much.
		going := 2*(c.link(c.class).due-due) > timeouts[c.class]
		c.back = c.back && !going
		if going && c.dir[originator].packets+c.dir[responder].packets > 0 {
			t.row(i, c, due, false)
		}
	}
}

// end makes the last row of a connection and forgets it.
func (t *Tracker) end(i int32, time int64) { t.finish(i, time, false) }

// evict ends a connection for want of room.
func (t *Tracker) evict(i int32) { t.finish(i, t.now, true) }

func (t *Tracker) finish(i int32, time int64, evicted bool) {
	c := t.conns.at(i)
	t.unlink(c.class, c)
	t.unlink(active, c)
	if c.waits {
		t.unlink(early, c)
	}
	t.row(i, c, time, true)
	t.roles.keep(c, evicted)
	if t.watch != nil {
		t.watch.end(i, c, time)
	}
	t.conns.remove(i)
}

func (t *Tracker) row(i int32, c *conn, time int64, ended bool) {
	if c.back {
		return
	}
	t.stats.Rows++
	if (!c.settled || c.unsure) && t.roles.settle(c, time) {
		t.swap(i, c)
	}
	t.emit(t.rows.row(i, c, time, ended))
}

// idlest returns the connection whose deadline was renewed longest ago: the head
// of one of the lists.
func (t *Tracker) idlest() int32 {
	best, since := int32(-1), int64(1<<63-1)
	for l := range numClasses {
		if h := t.lists[l].head; h >= 0 {
			if s := t.conns.at(h).link(l).due - timeouts[l]; s < since {
				best, since = h, s
			}
		}
	}
	return best
}

func (c *conn) link(l class) *link {
	switch l {
	case active:
		return &c.links[1]
	case early:
		return &c.links[2]
	}
	return &c.links[0]
}

func (t *Tracker) push(l class, i int32, c *conn) { t.pushAt(l, i, c, t.now+timeouts[l]) }

// pushAt appends c to list l, whose deadlines must not decrease.
func (t *Tracker) pushAt(l class, i int32, c *conn, due int64) {
	t.due = min(t.due, due)
	q := &t.lists[l]
	*c.link(l) = link{due: due, prev: q.tail, next: -1}
	if q.tail >= 0 {
		t.conns.at(q.tail).link(l).next = i
	} else {
		q.head = i
	}
	q.tail = i
}

func (t *Tracker) unlink(l class, c *conn) {
	k, q := c.link(l), &t.lists[l]
	if k.prev >= 0 {
		t.conns.at(k.prev).link(l).next = k.next
	} else {
		q.head = k.next
	}
	if k.next >= 0 {
		t.conns.at(k.next).link(l).prev = k.prev
	} else {
		q.tail = k.prev
	}
}
