package features

import "github.com/picket-ids/picket/capture"

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
