package features

import (
	"fmt"

	"github.com/picket-ids/picket/capture"
)

// HostRow is a row of a host window: what one host did, and what was done to it, in 10 s, with the last 600 s as
// context. Windows begin at multiples of 10 s of the packet clock, and a row is made when its window ends, for each host
// that sent or was sent a packet in it.
const HostRow RowKind = "host"

// A columnKind says how a column counts.
type columnKind uint8

const (
	countPlain    columnKind = iota // a sum
	countDistinct                   // distinct values: exact up to 32, then with a standard error of 9.2 %
	countMost                       // the largest sum of one value
	countDerived                    // computed of other columns of its group when the row is made
)

// A windowColumn is what host windows count of one thing. It gives a row two features, NAME_10s and NAME_600s.
type windowColumn struct {
	name, unit, doc string
	kind            columnKind
	derive          func(v blockView) float64 // of a derived column
}

// A windowGroup is the columns of one protocol. Its columns that are plain come first.
type windowGroup struct {
	name    string
	columns []windowColumn
}

// The groups, in the order of the dictionary.
const (
	groupTCP = iota
	groupUDP
	groupICMP
	groupLink
	groupDHCP
	groupDNS
	groupLogin
	groupMQTT
	groupHTTP
	numWindowGroups
)

var windowGroups = [numWindowGroups]*windowGroup{&tcpColumns, &udpColumns, &icmpColumns, &linkColumns, &dhcpColumns, &dnsColumns, &loginColumns, &mqttColumns, &httpColumns}

// hostFeatures are the dictionary's entries of the groups.
var hostFeatures = func() (all []Feature) {
	for g, group := range windowGroups {
		for c, column := range group.columns {
			if column.kind == countPlain && c >= blockLen {
				panic(fmt.Sprintf("host window column %s: more than %d plain ones in its group", column.name, blockLen))
			}
			for s := range numSpans {
				doc := column.doc + " in the window of 10 s"
				if s == spanLong {
					doc = column.doc + " in the last 300 to 600 s"
				}
				switch column.kind {
				case countDistinct:
					doc += " (exact while the last 300 to 600 s have up to 32, then HyperLogLog, standard error 9.2 %)"
				case countMost:
					doc += " (of the 16 values that have the most)"
				}
				all = append(all, Feature{Name: column.name + "_" + spanNames[s], Group: "host-" + group.name,
					Unit: column.unit, Doc: doc, Source: "Picket",
					value: func(v *windowView) float64 { return v.value(g, c, s) }})
			}
		}
	}
	return all
}()

// hostKey names a host within its zone.
type hostKey struct {
	zone uint32
	what hostWhat
	id   capture.Addr // the address, or the hardware address in the first octets
}

// hostWhat says what a host window is of.
type hostWhat uint8

const (
	hostAddress  hostWhat = iota + 1 // an address; outside, an IPv6 /64
	hostHardware                     // a hardware address on the link
	hostSegment                      // all of the segment
	hostRest                         // outside hosts for which there was no room
)

func (k *hostKey) hash() uint64 {
	return hashAddr(&k.id) ^ mix(uint64(k.zone)<<8|uint64(k.what), 0x9e3779b97f4a7c15)
}

func linkKey(zone uint32, mac capture.MAC) (k hostKey) {
	k.zone, k.what = zone, hostHardware
	copy(k.id[:], mac[:])
	return k
}

// hostState is one host. It holds no pointers.
type hostState struct {
	key          hostKey
	addr         capture.Addr // the latest one it used
	mac          capture.MAC
	window       int64 // the last in which it was active, in units of windowSpan
	first, last  int64 // ns, its packets in that window
	packets      [2]uint64
	octets       [2]uint64
	weight       uint32 // times it was looked up, halved each time that another host wants its place
	number       uint64 // of all hosts that were met: another one in the same place has another
	inside       bool
	index        int32
	older, newer int32 // in the list of its class, by use; -1 at the ends
	before, next int32 // in the list of the hosts that are active in this window, -1 at the ends
	blocks       [numWindowGroups]int32
}

// How many hosts are known at a time.
const (
	maxInside  = 4096
	maxOutside = 4096
)

// A hostTable holds the hosts. Inside ones make room for each other only, as outside ones do; an outside host takes
// another's place only when it has been looked up more often than that one, so that packets with made-up sources
// flush nobody.
type hostTable struct {
	table    *table[hostKey, hostState]
	lists    [2]list // outside, inside: head is the one used longest ago
	n        [2]int
	key      SketchKey
	seen     [2][4096]uint8 // of outside hosts that have no place: count-min
	turned   int64          // the half of the long span to which seen belongs
	met      uint64
	evicted  uint64
	rejected uint64
}

func newHostTable(key SketchKey) *hostTable {
	t := &hostTable{table: newTable[hostKey, hostState](maxInside + maxOutside), key: key}
	t.lists = [2]list{{-1, -1}, {-1, -1}}
	return t
}

func class2(inside bool) int {
	if inside {
		return 1
	}
	return 0
}

func (t *hostTable) unlink(i int32) {
	h := t.table.at(i)
	l := &t.lists[class2(h.inside)]
	if h.older >= 0 {
		t.table.at(h.older).newer = h.newer
	} else {
		l.head = h.newer
	}
	if h.newer >= 0 {
		t.table.at(h.newer).older = h.older
	} else {
		l.tail = h.older
	}
}

func (t *hostTable) link(i int32) {
	h := t.table.at(i)
	l := &t.lists[class2(h.inside)]
	h.older, h.newer = l.tail, -1
	if l.tail >= 0 {
		t.table.at(l.tail).newer = i
	} else {
		l.head = i
	}
	l.tail = i
}

// renew makes a host the one that was used last.
func (t *hostTable) renew(i int32) {
	if t.lists[class2(t.table.at(i).inside)].tail != i {
		t.unlink(i)
		t.link(i)
	}
}

// use returns the place of a host, -1 when there is none for it. isNew says that it was not known. evict is called
// with a host that makes room, before it is gone.
func (t *hostTable) use(k *hostKey, inside bool, now int64, evict func(int32)) (i int32, isNew bool) {
	hash := k.hash()
	if i = t.table.find(k, hash); i >= 0 {
		h := t.table.at(i)
		h.weight = saturate(h.weight, 1)
		t.renew(i)
		return i, false
	}
	c := class2(inside)
	if limit := [2]int{maxOutside, maxInside}[c]; t.n[c] == limit {
		oldest := t.lists[c].head
		if !inside && !t.admit(k, oldest, now) {
			t.rejected++
			return -1, false
		}
		evict(oldest)
		t.remove(oldest)
		t.evicted++
	}
	i, _ = t.table.put(k, hash)
	h := t.table.at(i)
	t.met++
	h.key, h.number, h.index, h.inside, h.weight, h.next, h.window = *k, t.met, i, inside, 1, -1, -1
	t.n[c]++
	t.link(i)
	return i, true
}

// remove forgets a host, whose blocks the caller has given back.
func (t *hostTable) remove(i int32) {
	h := t.table.at(i)
	t.unlink(i)
	t.n[class2(h.inside)]--
	h.number = 0 // connections remember the place
	t.table.remove(i)
}

// admit says whether an outside host takes the place of the one used longest ago, whose weight falls each time.
// Its hash is the same in every process, so that the rows are.
func (t *hostTable) admit(k *hostKey, oldest int32, now int64) bool {
	hash := t.key.hash(t.key.addr(&k.id), uint64(k.zone)<<8|uint64(k.what))
	if half := now / halfSpan; half != t.turned {
		t.turned = half
		for row := range t.seen {
			for k := range t.seen[row] {
				t.seen[row][k] /= 2
			}
		}
	}
	estimate := uint8(255)
	for row := range t.seen {
		c := &t.seen[row][hash>>(12*row+8)%4096]
		*c = min(*c, 254) + 1
		estimate = min(estimate, *c)
	}
	h := t.table.at(oldest)
	if uint32(estimate) > h.weight {
		return true
	}
	h.weight--
	return false
}

// A hostRef is a host as a connection remembers it: its place, and its number to know it by.
type hostRef struct {
	at     int32
	number uint64
}

// hostConn is what the hosts keep of a connection.
type hostConn struct {
	client, server hostRef
	echo           uint64 // ICMP: of the last request's data
	ref            int32  // to what the application keeps of it
	app            uint8  // its index+1; 0: none is followed
	echoSide       uint8  // that sent echo
	answered       bool   // UDP: the responder sent a packet after the originator; ICMP: it sent an echo request
	asked          bool   // UDP: the originator sent a packet; ICMP: it sent an echo request
}

// hosts makes the rows of host windows. It belongs to one goroutine.
type hosts struct {
	tracker *Tracker
	table   *hostTable
	memory  blocks
	conns   perConn[hostConn]
	names   hostNames
	links   linkState
	apps    []app

	exchange exchange // of the packet that is with an app

	fillers []filler[windowView]
	view    windowView
	out     Row
	emit    func(*Row)
	stats   Stats

	now    int64 // ns
	window int64 // the current one, in units of windowSpan; -1 before the first packet
	began  int64 // ns, the first packet
	active int32 // the first of the hosts that are active in this window, -1 for none
	newest int32 // the last of them
	key    sketchKey
}

// hostWarm is how long after the first packet a segment without its connection says nothing: the connection may be
// older than the capture.
const hostWarm = 5 * second

var hostKind = rowKind{
	name: HostRow, groups: [][]Feature{hostFeatures}, identity: []string{"capture", "start", "end", "host", "source"}, open: openHosts,
}

func openHosts(cfg Config, columns []column, emit func(*Row)) (Extractor, error) {
	w := &hosts{table: newHostTable(cfg.Key), emit: emit, key: cfg.Key, active: -1, newest: -1, window: -1}
	w.names.init(cfg.Home)
	w.links.init()
	for _, k := range appKinds {
		w.apps = append(w.apps, k.open())
	}
	w.memory.blocks.limit, w.memory.items.limit, w.memory.sketches.limit = 1<<14, 1<<15, 1<<11
	w.fillers = newFillers[windowView](columns)
	w.out.Values = make([]float32, len(columns))
	w.out.Kind, w.out.Ended = HostRow, true
	var err error
	if w.tracker, err = openConnections(cfg, nil, func(*Row) {}); err != nil {
		return nil, err
	}
	w.tracker.watch = w
	return w, nil
}

// Add takes one packet, after the rows of the windows that ended before it.
func (w *hosts) Add(p *capture.Packet) {
	w.Tick(p.Time)
	if p.ARP != nil {
		w.link(p)
		return
	}
	w.tracker.Add(p)
}

// Tick moves the packet clock, and makes the rows of a window that has ended.
func (w *hosts) Tick(now int64) {
	if w.window >= 0 && min(max(now, -maxTime), maxTime) < w.tracker.now-w.tracker.back { // time begins anew
		w.Flush()
		w.stats.ClockSteps++
	}
	w.tracker.Tick(now)
	w.roll(w.tracker.now)
}

// roll takes the hosts to a time, which is not before that of the last call.
func (w *hosts) roll(now int64) {
	at := now / windowSpan
	if w.window < 0 {
		w.began, w.window = now, at
	}
	if at > w.window {
		w.flush()
		w.window = at
	}
	w.now = max(w.now, now)
}

// Stats returns the counters so far.
func (w *hosts) Stats() Stats {
	s := w.stats
	s.Forgotten = w.table.evicted + w.table.rejected + w.memory.refused
	return s
}

// Flush makes the rows of the current window and forgets all hosts: what follows begins a new time.
func (w *hosts) Flush() {
	w.tracker.Flush()
	w.flush()
	for c := range w.table.lists {
		for w.table.lists[c].head >= 0 {
			i := w.table.lists[c].head
			w.release(i)
			w.table.remove(i)
		}
	}
	w.names.reset()
	w.links.reset()
	w.window, w.now = -1, 0
}

// flush makes the rows of the window's active hosts, in the order in which they became active.
func (w *hosts) flush() {
	for i := w.active; i >= 0; {
		h := w.table.table.at(i)
		next := h.next
		w.row(h)
		i = next
	}
	w.active, w.newest = -1, -1
}

func (w *hosts) row(h *hostState) {
	o := &w.out
	o.Time, o.Start, o.End = min((w.window+1)*windowSpan, maxTime), h.first, h.last
	o.Src, o.Dst = h.addr, capture.Addr{}
	o.Host = HostName{What: h.key.what, Zone: h.key.zone, Hardware: h.mac, Inside: h.inside}
	o.Packets, o.Octets = h.packets, h.octets
	w.view = windowView{&w.memory, h}
	fill(o.Values, w.fillers, &w.view)
	w.stats.Rows++
	w.emit(o)
}

// release gives back the blocks of a host.
func (w *hosts) release(i int32) {
	h := w.table.table.at(i)
	for g, ref := range h.blocks {
		if ref != 0 {
			w.memory.drop(ref)
			h.blocks[g] = 0
		}
	}
}

// evict makes the row of a host that loses its place in the middle of a window.
func (w *hosts) evict(i int32) {
	h := w.table.table.at(i)
	if h.window == w.window {
		w.row(h)
		w.deactivate(h)
	}
	w.release(i)
}

// deactivate takes a host out of the list of active ones.
func (w *hosts) deactivate(h *hostState) {
	if h.before >= 0 {
		w.table.table.at(h.before).next = h.next
	} else {
		w.active = h.next
	}
	if h.next >= 0 {
		w.table.table.at(h.next).before = h.before
	} else {
		w.newest = h.before
	}
}

// place returns the host of a key, or the one that stands for all for which there is no room.
func (w *hosts) place(k *hostKey, inside bool) (int32, *hostState) {
	i, _ := w.table.use(k, inside, w.now, w.evict)
	if i < 0 {
		rest := hostKey{zone: k.zone, what: hostRest}
		i, _ = w.table.use(&rest, true, w.now, w.evict)
	}
	return i, w.turn(i)
}

// turn brings a host into the current window.
func (w *hosts) turn(i int32) *hostState {
	h := w.table.table.at(i)
	if h.window == w.window {
		return h
	}
	halves := w.window*windowSpan/halfSpan - h.window*windowSpan/halfSpan
	if h.window < 0 {
		halves = 0
	}
	for _, ref := range h.blocks {
		if ref != 0 {
			w.memory.turn(w.memory.blocks.at(ref), halves)
		}
	}
	w.table.renew(i) // a host whose connections are all old ones is not looked up
	h.window = w.window
	h.first, h.last = w.now, w.now
	h.packets, h.octets = [2]uint64{}, [2]uint64{}
	h.before, h.next = w.newest, -1
	if w.newest >= 0 {
		w.table.table.at(w.newest).next = i
	} else {
		w.active = i
	}
	w.newest = i
	return h
}

// A windowView reads the columns of one host.
type windowView struct {
	memory *blocks
	host   *hostState
}

func (v *windowView) value(group, column int, s span) float64 {
	ref := v.host.blocks[group]
	if ref == 0 {
		return 0
	}
	return blockView{v.memory, v.memory.blocks.at(ref), windowGroups[group], s}.value(column)
}

// A blockView reads the columns of one group over one span.
type blockView struct {
	memory *blocks
	block  *block
	group  *windowGroup
	span   span
}

func (v blockView) value(column int) float64 {
	switch c := &v.group.columns[column]; c.kind {
	case countDistinct:
		return v.memory.distinctIn(v.block, uint8(column+1), v.span)
	case countMost:
		return v.memory.mostIn(v.block, uint8(column+1), v.span)
	case countDerived:
		return c.derive(v)
	}
	return v.block.counts[column].in(v.span)
}

// A deed counts for one host and group; the zero value counts nothing.
type deed struct {
	memory *blocks
	block  *block
}

// of returns what counts for a host in a group.
func (w *hosts) of(h *hostState, group int) deed {
	if h == nil {
		return deed{}
	}
	w.turn(h.index) // where nothing came lately, this is what makes it active
	return deed{&w.memory, w.memory.of(&h.blocks[group], h.inside)}
}

func (d deed) add(column int, n uint32) {
	if d.block != nil {
		d.block.counts[column].add(n)
	}
}

// distinct says whether the value is new; that is not known of more than 32 values, which all are.
func (d deed) distinct(column int, hash uint64) bool {
	return d.block != nil && d.memory.distinct(d.block, uint8(column+1), hash)
}

func (d deed) most(column int, hash uint64, n uint32) {
	if d.block != nil {
		d.memory.most(d.block, uint8(column+1), hash, n)
	}
}
