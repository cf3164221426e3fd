package features

import "github.com/picket-ids/picket/capture"

// A group keeps what some features of connections need to know beyond a sample. It has a
// file of its own, with the features that need it.
type group interface {
	// bind takes the columns that row is to fill.
	bind([]column)
	// row fills the group's columns of a row of connection i, which s describes.
	row(i int32, c *conn, s *sample, values []float32)
	// reset forgets the past but not the connections: time begins anew.
	reset()
	// forgotten counts the sources and the like that were forgotten for want of room.
	forgotten() uint64
}

// A follower is a group that sees every packet.
type follower interface {
	group
	// begin makes room for connection i, which is new.
	begin(i int32)
	// packet takes a packet that the given side of connection i sent, at now on the
	// packet clock. Of its payload fresh octets were not sent before.
	packet(i int32, c *conn, p *capture.Packet, side int, now int64, fresh int)
	// swap makes the client of connection i its server: better evidence came.
	swap(i int32)
}

// groupKind says how a group is made. Features name the one that they need.
type groupKind struct {
	open func(opener) group
}

// An opener returns the group of a kind. A group that is built on another one opens it.
type opener func(*groupKind) group

// columnsOf is embedded by a group whose features are computed from a V.
type columnsOf[V any] struct{ fillers []filler[V] }

func (c *columnsOf[V]) bind(columns []column) { c.fillers = newFillers[V](columns) }

func (c *columnsOf[V]) set(values []float32, from *V) { set(values, c.fillers, from) }

// neverForgets is embedded by a group that has room for all it keeps.
type neverForgets struct{}

func (neverForgets) forgotten() uint64 { return 0 }

// noPast is embedded by a group that keeps nothing but the state of open connections.
type noPast struct{ neverForgets }

func (noPast) reset() {}

// perConn holds the state that one group of features keeps of each connection,
// by the connection's index in the tracker's table. It exists only when a column
// of the group is asked for. Like the table's own entries, S must hold no
// pointers; memory is allocated as indices come into use, and reused.
type perConn[S any] struct {
	chunks []*[chunkLen]S
}

// begin returns the state of connection i, zero.
func (p *perConn[S]) begin(i int32) *S {
	for int(i/chunkLen) >= len(p.chunks) {
		p.chunks = append(p.chunks, new([chunkLen]S))
	}
	s := p.at(i)
	var zero S
	*s = zero
	return s
}

func (p *perConn[S]) at(i int32) *S { return &p.chunks[i/chunkLen][i%chunkLen] }

// tunnel is the way by which a connection's first packet came.
type tunnel struct {
	id       uint32
	src, dst capture.Addr
}
