package spool

import (
	"encoding/binary"
	"slices"
)

// Reason says why an entry was lost.
type Reason uint8

const (
	Full    Reason = iota // dropped, as the oldest, to make room
	Corrupt               // its record on the disk was damaged or could not be read
)

func (r Reason) String() string {
	if r == Full {
		return "full"
	}
	return "corrupt"
}

// MarshalText implements encoding.TextMarshaler.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// A Gap is a run of sequence numbers, First and Last included, whose entries were
// lost. One that was with the reader at the time may have arrived all the same.
type Gap struct {
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
	Reason Reason `json:"reason"`
}

const (
	maxGaps      = 32
	maxAcksBytes = 24 << 10
	stateReserve = 32 << 10 // more than any state takes, encoded
)

// state is what is done with; it is written into the segments now and then.
type state struct {
	cursor  uint64 // all below is acknowledged or lost
	done    spans  // and so is this, beyond the cursor
	dropped uint64 // since the queue was created; so is corrupt
	corrupt uint64
	gaps    []Gap // the last maxGaps, ascending
}

func (s *state) clone() state {
	c := *s
	c.done, c.gaps = slices.Clone(s.done), slices.Clone(s.gaps)
	return c
}

// finish marks n as done with.
func (s *state) finish(n span) {
	if n.last < s.cursor {
		return
	}
	if n.first > s.cursor {
		s.done.add(n)
		return
	}
	s.cursor = n.last + 1
	i := s.done.index(s.cursor)
	if i < len(s.done) && s.done[i].first <= s.cursor {
		s.cursor = s.done[i].last + 1
		i++
	}
	s.done = slices.Delete(s.done, 0, i)
}

// lose marks as lost what of n is not done with, and counts it.
func (s *state) lose(n span, why Reason) (lost uint64) {
	n.first = max(n.first, s.cursor)
	if n.first > n.last {
		return 0
	}
	var known spans // by a state whose end was torn off
	for _, g := range s.gaps {
		known = append(known, span{g.First, g.Last})
	}
	for _, m := range s.done.missing(n) {
		for _, m := range known.missing(m) {
			s.gap(m, why)
			lost += m.len()
		}
	}
	if why == Full {
		s.dropped += lost
	} else {
		s.corrupt += lost
	}
	s.finish(n)
	return lost
}

// gap adds n to the gaps, which it does not overlap.
func (s *state) gap(n span, why Reason) {
	i := len(s.gaps)
	for i > 0 && s.gaps[i-1].First > n.first {
		i--
	}
	s.gaps = slices.Insert(s.gaps, i, Gap{n.first, n.last, why})
	for j := min(i+1, len(s.gaps)-1); j >= max(i, 1); j-- {
		if a, b := &s.gaps[j-1], s.gaps[j]; a.Last+1 == b.First && a.Reason == b.Reason {
			a.Last = b.Last
			s.gaps = slices.Delete(s.gaps, j, j+1)
		}
	}
	if len(s.gaps) > maxGaps {
		s.gaps = slices.Delete(s.gaps, 0, 1)
	}
}

// append appends the state as records; loss: the part about losses too.
func (s *state) append(b []byte, loss, barrier bool) []byte {
	if loss {
		p := binary.AppendUvarint(nil, s.dropped)
		p = binary.AppendUvarint(p, s.corrupt)
		at := uint64(0)
		for _, g := range s.gaps {
			p = binary.AppendUvarint(p, g.First-at)
			p = binary.AppendUvarint(p, g.Last-g.First)
			p = binary.AppendUvarint(p, uint64(g.Reason))
			at = g.Last
		}
		b = (&record{kindLoss, barrier, s.cursor, p}).append(b)
		barrier = false
	}
	var p []byte
	at := s.cursor
	for _, d := range s.done {
		if len(p) > maxAcksBytes { // the rest comes again after a restart
			break
		}
		p = binary.AppendUvarint(p, d.first-at)
		p = binary.AppendUvarint(p, d.last-d.first)
		at = d.last
	}
	return (&record{kindAcks, barrier, s.cursor, p}).append(b)
}

// restore takes over what a scan found.
func (s *state) restore(c *content) {
	s.cursor = c.state
	d := uvarints{c.acks}
	for at := c.acksAt; ; {
		first, ok1 := d.next()
		n, ok2 := d.next()
		if !ok1 || !ok2 {
			break
		}
		r := span{at + first, at + first + n}
		if r.last > maxSeq {
			break
		}
		s.finish(r)
		at = r.last
	}
	d = uvarints{c.loss}
	s.dropped, _ = d.next()
	s.corrupt, _ = d.next()
	for at := uint64(0); len(s.gaps) < maxGaps; {
		first, ok1 := d.next()
		n, ok2 := d.next()
		why, ok3 := d.next()
		if !ok1 || !ok2 || !ok3 {
			break
		}
		g := Gap{at + first, at + first + n, Reason(why)}
		if g.First <= at || g.Last > maxSeq || why > uint64(Corrupt) {
			break
		}
		s.gaps = append(s.gaps, g)
		at = g.Last
	}
}

type uvarints struct{ b []byte }

// next returns false at the end, and at what is more than any number here.
func (u *uvarints) next() (uint64, bool) {
	v, n := binary.Uvarint(u.b)
	if n <= 0 || v > maxSeq {
		u.b = nil
		return 0, false
	}
	u.b = u.b[n:]
	return v, true
}
