package features

import (
	"math"
	"math/bits"
	"slices"
)

// Spans of the counters of host windows, in nanoseconds. The long span is made of two halves, the current one and the
// one before, so that it covers 300 to 600 s.
const (
	windowSpan = 10 * second
	halfSpan   = 300 * second
)

// A span is one of the two times over which each column of a host window counts.
type span uint8

const (
	spanWindow span = iota
	spanLong
	numSpans
)

var spanNames = [numSpans]string{"10s", "600s"}

// counts is a counter over both spans: of the current window, of the current half, which includes the window, and of
// the half before.
type counts struct{ now, half, past uint32 }

func (c *counts) add(n uint32) {
	c.now, c.half = saturate(c.now, n), saturate(c.half, n)
}

func saturate(a, b uint32) uint32 {
	if s := a + b; s >= a {
		return s
	}
	return math.MaxUint32
}

func (c *counts) in(s span) float64 {
	if s == spanWindow {
		return float64(c.now)
	}
	return float64(c.half) + float64(c.past)
}

// turn takes c into a later window, halves of the long span later.
func (c *counts) turn(halves int64) {
	c.now = 0
	switch {
	case halves == 1:
		c.half, c.past = 0, c.half
	case halves > 1:
		c.half, c.past = 0, 0
	}
}

// An item is one value of a column that counts distinct values, or the most for one of them.
type item struct {
	hash   uint32
	column uint8
	counts counts
}

const (
	chunkItems = 7
	// exactItems is up to how many distinct values a column counts exactly; beyond, by a sketch.
	exactItems = 32
	// mostItems is for how many values at a time a column knows which has the most (space-saving, Metwally et al.
	// 2005): a value that has more than a 16th of all is among them.
	mostItems = 16
)

type itemChunk struct {
	items [chunkItems]item
	next  int32 // index+1 in the pool, as all references there
}

// A registers is a HyperLogLog sketch over both spans: standard error 9.2 %.
type registers struct {
	now, half, past [128]uint8
	column          uint8
	next            int32
}

func (r *registers) add(hash uint64) {
	k, rank := hash>>57, uint8(bits.LeadingZeros64(hash<<7|1<<6))+1
	r.now[k], r.half[k] = max(r.now[k], rank), max(r.half[k], rank)
}

func (r *registers) in(s span) float64 {
	const m = 128.0
	sum, zeros := 0.0, 0.0
	for k := range r.now {
		rank := r.now[k]
		if s == spanLong {
			rank = max(r.half[k], r.past[k])
		}
		sum += math.Ldexp(1, -int(rank))
		if rank == 0 {
			zeros++
		}
	}
	e := 0.7213 / (1 + 1.079/m) * m * m / sum
	if e <= 2.5*m && zeros > 0 {
		e = m * math.Log(m/zeros)
	}
	return math.Round(e)
}

func (r *registers) turn(halves int64) {
	clear(r.now[:])
	switch {
	case halves == 1:
		r.past, r.half = r.half, [128]uint8{}
	case halves > 1:
		r.past, r.half = [128]uint8{}, [128]uint8{}
	}
}

func (r *registers) empty() bool {
	return !slices.ContainsFunc(r.half[:], func(b uint8) bool { return b > 0 }) &&
		!slices.ContainsFunc(r.past[:], func(b uint8) bool { return b > 0 })
}

// blockLen is how many plain counters a group may have.
const blockLen = 24

// A block is what a host window keeps of one group of columns.
type block struct {
	counts   [blockLen]counts
	items    int32 // first chunk
	sketches int32 // first of its registers
	inside   bool  // of an inside host
}

// A pool lends values of one type, as many as its limit, in memory that is made as they come into use. T holds no
// pointers.
type pool[T any] struct {
	chunks []*[chunkLen]T
	free   []int32
	used   int32
	limit  int32
}

// get returns the reference of a zero value, 0 when all are lent.
func (p *pool[T]) get() int32 {
	if n := len(p.free); n > 0 {
		r := p.free[n-1]
		p.free = p.free[:n-1]
		var zero T
		*p.at(r) = zero
		return r
	}
	if p.used == p.limit {
		return 0
	}
	if int(p.used/chunkLen) == len(p.chunks) {
		p.chunks = append(p.chunks, new([chunkLen]T))
		p.free = slices.Grow(p.free, len(p.chunks)*chunkLen-len(p.free)) // so that put allocates nothing
	}
	p.used++
	return p.used
}

// getFor is get; a half of the pool is for inside hosts alone.
func (p *pool[T]) getFor(inside bool) int32 {
	if lent := p.used - int32(len(p.free)); !inside && lent >= p.limit/2 {
		return 0
	}
	return p.get()
}

func (p *pool[T]) at(r int32) *T { return &p.chunks[(r-1)/chunkLen][(r-1)%chunkLen] }

func (p *pool[T]) put(r int32) { p.free = append(p.free, r) }

// blocks holds the counters of all hosts.
type blocks struct {
	blocks   pool[block]
	items    pool[itemChunk]
	sketches pool[registers]
	refused  uint64 // counts that were lost because a pool was empty
}

// of returns the block at a reference that a host keeps, after it made one where there is none; nil when there is no
// room.
func (m *blocks) of(ref *int32, inside bool) *block {
	if *ref == 0 {
		if *ref = m.blocks.getFor(inside); *ref == 0 {
			m.refused++
			return nil
		}
		m.blocks.at(*ref).inside = inside
	}
	return m.blocks.at(*ref)
}

// drop gives a block back.
func (m *blocks) drop(ref int32) {
	b := m.blocks.at(ref)
	for b.items != 0 {
		next := m.items.at(b.items).next
		m.items.put(b.items)
		b.items = next
	}
	for b.sketches != 0 {
		next := m.sketches.at(b.sketches).next
		m.sketches.put(b.sketches)
		b.sketches = next
	}
	m.blocks.put(ref)
}

// turn takes a block into a later window, and gives back what holds nothing any more.
func (m *blocks) turn(b *block, halves int64) {
	for k := range b.counts {
		b.counts[k].turn(halves)
	}
	for at := &b.items; *at != 0; {
		c, any := m.items.at(*at), false
		for k := range c.items {
			if i := &c.items[k]; i.column != 0 {
				if i.counts.turn(halves); i.counts == (counts{}) {
					*i = item{}
				}
				any = any || i.column != 0
			}
		}
		if any {
			at = &c.next
			continue
		}
		gone := *at
		*at = c.next
		m.items.put(gone)
	}
	for at := &b.sketches; *at != 0; {
		r := m.sketches.at(*at)
		if r.turn(halves); !r.empty() {
			at = &r.next
			continue
		}
		gone := *at
		*at = r.next
		m.sketches.put(gone)
	}
}

// find returns the item of a value, a free place for one (nil where there is none), and how many the column has.
func (m *blocks) find(b *block, column uint8, hash uint32) (found, free, least *item, n int) {
	for at := b.items; at != 0; {
		c := m.items.at(at)
		for k := range c.items {
			switch i := &c.items[k]; {
			case i.column == 0:
				if free == nil {
					free = i
				}
			case i.column == column:
				if i.hash == hash {
					return i, nil, nil, 0
				}
				n++
				if least == nil || i.counts.in(spanLong) < least.counts.in(spanLong) {
					least = i
				}
			}
		}
		at = c.next
	}
	return nil, free, least, n
}

// place returns room for one more item of b, nil when there is none.
func (m *blocks) place(b *block, free *item) *item {
	if free != nil {
		return free
	}
	r := m.items.getFor(b.inside)
	if r == 0 {
		m.refused++
		return nil
	}
	c := m.items.at(r)
	c.next, b.items = b.items, r
	return &c.items[0]
}

func (m *blocks) sketch(b *block, column uint8) *registers {
	for at := b.sketches; at != 0; {
		r := m.sketches.at(at)
		if r.column == column {
			return r
		}
		at = r.next
	}
	return nil
}

// distinct counts a value, by its hash, for a column of distinct values. It says whether the value is new, as far as
// that is known.
func (m *blocks) distinct(b *block, column uint8, hash uint64) bool {
	if r := m.sketch(b, column); r != nil {
		r.add(hash)
		return true
	}
	found, free, _, n := m.find(b, column, uint32(hash>>32))
	switch {
	case found != nil:
		found.counts.add(1)
		return false
	case n < exactItems:
		if i := m.place(b, free); i != nil {
			*i = item{hash: uint32(hash >> 32), column: column, counts: counts{now: 1, half: 1}}
		}
	default:
		m.spread(b, column, hash)
	}
	return true
}

// spread makes a sketch of the items of a column.
func (m *blocks) spread(b *block, column uint8, hash uint64) {
	at := m.sketches.getFor(b.inside)
	if at == 0 {
		m.refused++
		return
	}
	r := m.sketches.at(at)
	r.column, r.next, b.sketches = column, b.sketches, at
	for at := b.items; at != 0; {
		c := m.items.at(at)
		for k := range c.items {
			i := &c.items[k]
			if i.column != column {
				continue
			}
			// The upper half of the hash decides register and, but for one in 2^25, rank.
			full := uint64(i.hash)<<32 | 1<<31
			k, rank := full>>57, uint8(bits.LeadingZeros64(full<<7|1<<6))+1
			for _, span := range []struct {
				n    uint32
				into *[128]uint8
			}{{i.counts.now, &r.now}, {i.counts.half, &r.half}, {i.counts.past, &r.past}} {
				if span.n > 0 {
					span.into[k] = max(span.into[k], rank)
				}
			}
			*i = item{}
		}
		at = c.next
	}
	r.add(hash)
}

// most counts n for a value of a column that knows which value has the most.
func (m *blocks) most(b *block, column uint8, hash uint64, n uint32) {
	found, free, least, have := m.find(b, column, uint32(hash>>32))
	switch {
	case found != nil:
	case have < mostItems:
		if found = m.place(b, free); found == nil {
			return
		}
		*found = item{hash: uint32(hash >> 32), column: column}
	default:
		// Of the long span the newcomer inherits the count of the least, of the window nothing.
		found = least
		found.hash = uint32(hash >> 32)
		found.counts.now = 0
	}
	found.counts.add(n)
}

// distinctIn and mostIn are the values of such columns.
func (m *blocks) distinctIn(b *block, column uint8, s span) float64 {
	if r := m.sketch(b, column); r != nil {
		return r.in(s)
	}
	n := 0
	m.each(b, column, func(i *item) {
		if i.counts.in(s) > 0 {
			n++
		}
	})
	return float64(n)
}

func (m *blocks) mostIn(b *block, column uint8, s span) float64 {
	most := 0.0
	m.each(b, column, func(i *item) { most = max(most, i.counts.in(s)) })
	return most
}

func (m *blocks) each(b *block, column uint8, f func(*item)) {
	for at := b.items; at != 0; {
		c := m.items.at(at)
		for k := range c.items {
			if i := &c.items[k]; i.column == column {
				f(i)
			}
		}
		at = c.next
	}
}
