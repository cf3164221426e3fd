package spool

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"
)

// A record is, little-endian:
//
//	0  uint32  CRC-32C of all that follows
//	4  uint24  length of the payload
//	7  uint8   kind; with flagBarrier, all before it in the file was synced
//	8  uint64  sequence number of an event; else the cursor
//	16         payload
const (
	headerLen  = 16
	maxPayload = 1<<24 - 1
	maxSeq     = 1 << 62 // so that arithmetic on what a file says cannot overflow

	flagBarrier = 0x80
)

const (
	kindEvent = 1 // payload: the caller's
	kindAcks  = 2 // payload: uvarint pairs, gap and length less 1: what beyond the cursor is done
	kindLoss  = 3 // payload: uvarints: dropped, corrupt; gap, length less 1 and reason of each Gap
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type record struct {
	kind    uint8
	barrier bool
	seq     uint64
	payload []byte // valid until the next use of the source
}

func (r *record) size() int64 { return headerLen + int64(len(r.payload)) }

// append appends the encoded record to b.
func (r *record) append(b []byte) []byte {
	kind := r.kind
	if r.barrier {
		kind |= flagBarrier
	}
	i := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.payload))|uint32(kind)<<24)
	b = binary.LittleEndian.AppendUint64(b, r.seq)
	b = append(b, r.payload...)
	binary.LittleEndian.PutUint32(b[i:], crc32.Checksum(b[i+4:], castagnoli))
	return b
}

var errBad = errors.New("bad record")

// source reads the records of a file up to limit, through a buffer.
type source struct {
	r     io.ReaderAt
	limit int64
	buf   []byte
	at    int64 // of buf in the file
}

const (
	readAhead  = 64 << 10
	keepBuffer = 1 << 20
)

// bytes returns n bytes at off, which must end at or before limit.
func (s *source) bytes(off int64, n int) ([]byte, error) {
	if i := off - s.at; i >= 0 && i+int64(n) <= int64(len(s.buf)) {
		return s.buf[i : i+int64(n)], nil
	}
	size := int(min(int64(max(n, readAhead)), s.limit-off))
	if cap(s.buf) < size || cap(s.buf) > keepBuffer && size <= keepBuffer {
		s.buf = make([]byte, size)
	}
	s.buf, s.at = s.buf[:size], off
	got, err := s.r.ReadAt(s.buf, off)
	s.buf = s.buf[:got]
	if got < n {
		if err == nil || err == io.EOF { // the file has been cut from outside
			err = errBad
		}
		return nil, err
	}
	return s.buf[:n], nil
}

const (
	pageSize      = 4096 // what a disk loses at a time, or more
	maxUnreadable = 16   // pages of a file, before no more are tried: on a broken disk each takes seconds
)

// salvage reads what can be read of a file: the rest is zeros, as damage often is.
type salvage struct {
	r    io.ReaderAt
	lost []int64 // pages that cannot be read, by their offset
	err  error   // why not the first of these
}

func (s *salvage) ReadAt(b []byte, off int64) (n int, err error) {
	if s.err == nil {
		if n, err = s.r.ReadAt(b, off); err == nil || err == io.EOF {
			return n, err
		}
	}
	for n = 0; n < len(b); {
		at := off + int64(n)
		page := b[n:min(len(b), n+pageSize-int(at%pageSize))]
		at -= at % pageSize
		if len(s.lost) == maxUnreadable || slices.Contains(s.lost, at) {
			clear(page)
			n += len(page)
			continue
		}
		got, err := s.r.ReadAt(page, off+int64(n))
		switch {
		case err == io.EOF:
			return n + got, err
		case err != nil:
			s.err = cmp.Or(s.err, err)
			s.lost = append(s.lost, at)
		default:
			n += got
		}
	}
	return n, nil
}

// unreadable reports whether anything from off on could not be read.
func (s *salvage) unreadable(off int64) bool {
	return len(s.lost) == maxUnreadable || len(s.lost) > 0 && slices.Max(s.lost)+pageSize > off
}

// record reads the record at off: io.EOF at the limit, errBad when there is none
// there; other errors are the file's.
func (s *source) record(off int64) (record, error) {
	if off >= s.limit {
		return record{}, io.EOF
	}
	if s.limit-off < headerLen {
		return record{}, errBad
	}
	h, err := s.bytes(off, headerLen)
	if err != nil {
		return record{}, err
	}
	r := decodeHeader(h)
	n := payloadLen(h)
	if !r.plausible() || int64(n) > s.limit-off-headerLen {
		return record{}, errBad
	}
	b, err := s.bytes(off, headerLen+n)
	if err != nil {
		return record{}, err
	}
	if crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) {
		return record{}, errBad
	}
	r.payload = b[headerLen:]
	return r, nil
}

func decodeHeader(h []byte) record {
	return record{
		kind:    h[7] &^ flagBarrier,
		barrier: h[7]&flagBarrier != 0,
		seq:     binary.LittleEndian.Uint64(h[8:]),
	}
}

func payloadLen(h []byte) int { return int(binary.LittleEndian.Uint32(h[4:]) & maxPayload) }

func (r *record) plausible() bool {
	return r.kind >= kindEvent && r.kind <= kindLoss && r.seq >= 1 && r.seq <= maxSeq
}

// find returns the first offset at or after off where a record begins that
// accept, which does not see the payload, takes; io.EOF when there is none.
func (s *source) find(off int64, accept func(*record) bool) (int64, error) {
	// Checksums over bytes that merely look like a header are bounded in total.
	for budget := 16*s.limit + keepBuffer; off <= s.limit-headerLen; off++ {
		h, err := s.bytes(off, headerLen)
		if err != nil {
			return 0, err
		}
		r := decodeHeader(h)
		n := int64(payloadLen(h))
		if !r.plausible() || n > s.limit-off-headerLen || !accept(&r) {
			continue
		}
		if budget -= n; budget < 0 {
			break
		}
		if _, err := s.record(off); err != errBad {
			return off, err
		}
	}
	return 0, io.EOF
}

// content is what a scan learns of a segment.
type content struct {
	end    int64  // of what can be read
	next   uint64 // after the last event
	proven proven // what was certainly synced
	seen   proven // with what is behind the end and cannot be trusted
	state  uint64 // the last cursor, 0 when there is none
	acks   []byte // payloads of the last records of their kind, nil when there are none
	acksAt uint64 // the cursor that acks is relative to
	loss   []byte
}

// proven is the part of a segment up to an offset.
type proven struct {
	end  int64
	next uint64
}

// scan reads a segment that may end in what a crash left. A bad record with a
// barrier behind it was damaged after it had been synced: it is left where it is,
// for the reader to step over and count. One without ends the segment.
func (s *source) scan(base uint64) (c content, torn bool, err error) {
	c.next, c.proven.next = base, base
	// Of what is found behind damage, what is older was left over in a reused block.
	newer := func(r *record) bool { return r.seq >= c.next || r.kind != kindEvent && r.seq >= c.state }
	var sure content // before the first bad record without a barrier behind it
	for off := int64(0); ; {
		r, err := s.record(off)
		if err == errBad || err == nil && r.kind == kindEvent && r.seq < c.next {
			if !torn {
				torn, sure = true, c
			}
			if off, err = s.find(off+1, newer); err == nil {
				r, err = s.record(off)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return c, torn, err
		}
		if r.barrier {
			torn = false
			c.proven = proven{off, c.next}
		}
		off += r.size()
		c.end = off
		switch r.kind {
		case kindEvent:
			c.next = r.seq + 1
		case kindAcks:
			c.acks, c.acksAt, c.state = append([]byte{}, r.payload...), r.seq, r.seq
		case kindLoss:
			c.loss, c.state = append([]byte{}, r.payload...), r.seq
		}
	}
	c.seen = proven{c.end, c.next}
	if torn {
		sure.seen = c.seen
		return sure, true, nil
	}
	return c, false, nil
}

// events returns the event records from off to the limit, encoded.
func (s *source) events(off int64) (b []byte, err error) {
	for {
		r, err := s.record(off)
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		if r.kind == kindEvent {
			r.barrier = false
			b = r.append(b)
		}
		off += r.size()
	}
}
