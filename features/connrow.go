package features

import (
	"math"

	"github.com/picket-ids/picket/capture"
)

// sample is what is known of one connection's row without a group.
type sample struct {
	conn     *conn
	flag     Flag
	duration float64 // s, whole
	src, dst float64 // octets of payload
	time     int64   // ns, of the row
	err      errorKind
	enters   bool // the connection counts in the windows from this row on
	refused  bool // Row.Refused
	first    bool // no row of the connection came before
}

// rower fills the rows of connections, and holds the groups that its columns need.
type rower struct {
	fillers   []filler[sample] // of the columns that need no group
	groups    []group
	followers []follower      // those of groups that see every packet
	tunnels   perConn[tunnel] // of the connections that came by one
	sample    sample
	out       Row
}

func newRower(columns []column) (r rower) {
	r.out.Kind = ConnectionRow
	r.out.Values = make([]float32, len(columns))
	var kinds []*groupKind
	of := map[*groupKind][]column{} // columns by the group that they need; nil: none
	for _, c := range columns {
		k := c.feature.needs.(*groupKind)
		if k != nil && of[k] == nil {
			kinds = append(kinds, k)
		}
		of[k] = append(of[k], c)
	}
	r.fillers = newFillers[sample](of[nil])
	opened := map[*groupKind]group{}
	var open opener
	open = func(k *groupKind) group {
		g := opened[k]
		if g == nil {
			g = k.open(open)
			g.bind(of[k])
			opened[k] = g
			r.groups = append(r.groups, g)
			if f, ok := g.(follower); ok {
				r.followers = append(r.followers, f)
			}
		}
		return g
	}
	for _, k := range kinds {
		open(k)
	}
	return r
}

// begin makes room for what the groups keep of connection i.
func (r *rower) begin(i int32) {
	for _, f := range r.followers {
		f.begin(i)
	}
}

// packet shows the groups a packet of connection i, of whose payload fresh octets
// were not sent before.
func (r *rower) packet(i int32, c *conn, p *capture.Packet, side int, now int64, fresh int) {
	for _, f := range r.followers {
		f.packet(i, c, p, side, now, fresh)
	}
}

// swap gives each side of connection i what the groups keep of the other one.
func (r *rower) swap(i int32) {
	for _, f := range r.followers {
		f.swap(i)
	}
}

// row makes the row of c at the given time. It is valid until the next call.
func (r *rower) row(i int32, c *conn, time int64, ended bool) *Row {
	s := &r.sample
	s.conn, s.time = c, time
	s.flag = c.flag()
	s.err = s.flag.errorKind()
	s.duration = math.Trunc(float64(c.last-c.start) / 1e9)
	s.src, s.dst = float64(c.dir[originator].payload), float64(c.dir[responder].payload)
	if s.flag == S0 || s.flag == REJ || s.flag == SH {
		// Nobody took it: all but 4 of NSL-KDD's 36,864 S0 rows, and all REJ and SH
		// rows, have no bytes.
		s.src, s.dst = 0, 0
	}
	s.enters = !c.counted && (ended || c.looked != [2]bool{})
	c.counted = c.counted || s.enters
	o := &r.out
	o.Time, o.Start, o.End, o.Ended = time, c.start, c.last, ended
	o.Src, o.Dst, o.Proto, o.Flag = c.addr(originator), c.addr(responder), c.key.proto, s.flag
	o.Role, o.Unsure = c.role, c.unsure
	o.SrcPort, o.DstPort, o.ICMPType, o.ICMPCode = 0, 0, c.icmpType, c.icmpCode
	if !c.isICMP() {
		o.SrcPort, o.DstPort = c.port(originator), c.port(responder)
	}
	o.Tunnel, o.TunnelID, o.OuterSrc, o.OuterDst = c.tunnel, 0, capture.Addr{}, capture.Addr{}
	if c.tunnel != capture.TunnelNone {
		w := r.tunnels.at(i)
		o.TunnelID, o.OuterSrc, o.OuterDst = w.id, w.src, w.dst
	}
	o.Refused = s.flag == S0 || s.flag == REJ || s.flag == RSTOS0 || s.flag == SH ||
		c.icmpErrors > 0 && c.dir[responder].payload == 0 && !c.dir[responder].sequenced ||
		c.unanswered(time)
	for side := range c.dir {
		d := &c.dir[side]
		o.Packets[side], o.Octets[side] = uint64(d.packets), d.wire
		d.packets, d.wire = 0, 0
	}
	o.Connection, o.Serial = c.number, int(c.rows)
	c.rows++
	s.refused, s.first = o.Refused, o.Serial == 0
	fill(o.Values, r.fillers, s)
	for _, g := range r.groups {
		g.row(i, c, s, o.Values)
	}
	return o
}

func (r *rower) reset() {
	for _, g := range r.groups {
		g.reset()
	}
}

// forgotten counts what the groups forgot for want of room.
func (r *rower) forgotten() (n uint64) {
	for _, g := range r.groups {
		n += g.forgotten()
	}
	return n
}
