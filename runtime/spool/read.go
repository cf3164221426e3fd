package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Next returns the oldest entry that is not acknowledged and not with the reader,
// who has what Next returned since Open until Return. It waits for one until ctx
// ends: when ctx has ended it returns what is there. While 16,384 entries are with
// the reader, it waits too.
//
// An error that is neither ctx's nor ErrClosed is of the disk. Next can be called
// again, better after a while: what cannot be read of a segment three times in a row
// it gives up, and counts the loss. What cannot be opened, because there are too many
// open files or for want of rights, it does not give up.
func (q *Queue) Next(ctx context.Context) (Entry, error) {
	select {
	case q.read <- struct{}{}:
	default:
		select {
		case q.read <- struct{}{}:
		case <-ctx.Done():
			return Entry{}, fmt.Errorf("read queue %s: %w", q.dir, ctx.Err())
		}
	}
	defer func() { <-q.read }()
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return Entry{}, fmt.Errorf("read queue %s: %w", q.dir, ErrClosed)
		}
		q.advance(q.pos)
		if q.pos >= q.durable || q.inFlight() >= maxInFlight {
			q.mu.Unlock()
			select {
			case <-q.wake:
				continue
			case <-q.closing:
				continue
			case <-ctx.Done():
				return Entry{}, fmt.Errorf("read queue %s: %w", q.dir, ctx.Err())
			}
		}
		// The cursor, and so pos, is never before the first segment.
		pos, end := q.pos, q.durable
		i := len(q.segments) - 1
		for ; q.segments[i].base > pos; i-- {
			end = q.segments[i].base
		}
		s := q.segments[i]
		limit := s.synced
		q.mu.Unlock()

		payload, found, err := q.load(s, limit, pos, end)
		q.mu.Lock()
		if q.pos != pos || q.closed || q.segmentOf(pos) != s { // dropped meanwhile
			q.mu.Unlock()
			continue
		}
		if err != nil {
			q.mu.Unlock()
			if q.failures < maxFailures {
				return Entry{}, fmt.Errorf("read queue %s: entry %d: %w", q.dir, pos, err)
			}
			q.log.Error("queue cannot be read in places", "queue", q.dir, "error", err)
			q.failures = 0
			q.src = source{r: &salvage{r: q.srcFile}}
			continue
		}
		q.failures = 0
		if found != pos {
			n := q.state.lose(span{pos, found - 1}, Corrupt)
			q.advance(found)
			q.loss, q.dirty = true, true
			q.arm(q.timing.interval)
			q.mu.Unlock()
			q.log.Error("entries of the queue are damaged, skipped", "queue", q.dir, "entries", n, "first", pos)
			continue
		}
		q.pos++
		q.taken = max(q.taken, q.pos)
		q.mu.Unlock()
		return Entry{pos, payload}, nil
	}
}

// segmentOf returns the segment that seq belongs to; mu is held.
func (q *Queue) segmentOf(seq uint64) *segment {
	for i := len(q.segments) - 1; i >= 0; i-- {
		if q.segments[i].base <= seq {
			return q.segments[i]
		}
	}
	return nil
}

// inFlight counts what is handed out and not done with; mu is held.
func (q *Queue) inFlight() uint64 {
	return q.pos - q.state.cursor - q.state.done.below(q.pos) + q.held.below(maxSeq)
}

// advance moves pos to to, and over what is done or handed out; mu is held.
func (q *Queue) advance(to uint64) {
	q.pos = max(to, q.state.cursor)
	for was := uint64(0); was != q.pos; {
		was = q.pos
		for _, s := range []spans{q.state.done, q.held} {
			if i := s.index(q.pos); i < len(s) && s[i].first <= q.pos {
				q.pos = s[i].last + 1
			}
		}
	}
	q.held.removeBelow(q.pos)
}

// load reads entry pos from s, which should hold it and all others before end.
// found is the first entry there is from pos on, end when there is none; the
// payload is that of pos.
func (q *Queue) load(s *segment, limit int64, pos, end uint64) (payload []byte, found uint64, err error) {
	if q.srcSeg != s {
		q.closeSource()
		f, err := q.disk.Open(s.name(), os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, end, nil
		}
		if err != nil {
			return nil, 0, err
		}
		q.srcFile, q.srcSeg, q.srcOff = f, s, 0
		q.src = source{r: f, buf: q.src.buf[:0]}
	}
	if pos < q.srcPos { // it was returned
		q.srcOff = 0
	}
	q.src.limit, q.srcPos = limit, pos
	wanted := func(r *record) bool { return r.kind == kindEvent && r.seq >= pos && r.seq < end }
	for {
		r, err := q.src.record(q.srcOff)
		if err == errBad {
			if q.srcOff, err = q.src.find(q.srcOff+1, wanted); err == nil {
				r, err = q.src.record(q.srcOff)
			}
			if err == io.EOF {
				q.srcOff = limit
			}
		}
		switch {
		case err == io.EOF:
			return nil, end, nil
		case err != nil:
			q.failures++
			return nil, 0, err
		case r.kind != kindEvent || r.seq < pos:
			q.srcOff += r.size()
		case r.seq >= end: // written again in the next segment
			return nil, end, nil
		case r.seq > pos:
			return nil, r.seq, nil
		default:
			q.srcOff += r.size()
			q.srcPos++
			return append([]byte{}, r.payload...), pos, nil
		}
	}
}

func (q *Queue) closeSource() {
	if q.srcFile != nil {
		q.srcFile.Close()
	}
	q.srcFile, q.srcSeg = nil, nil
}

// Ack takes the entry seq, which Next has returned, out of the queue, also after
// Return. Acknowledging one twice, or one that was dropped, does nothing.
func (q *Queue) Ack(seq uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if seq < q.state.cursor || seq >= q.taken || q.state.done.contains(seq) {
		return
	}
	if q.inFlight() >= maxInFlight {
		q.wakeNext()
	}
	q.held.remove(seq)
	q.state.finish(span{seq, seq})
	q.pos = max(q.pos, q.state.cursor) // over what an earlier process acknowledged
	q.counts.acked++
	q.dirty = true
	q.arm(q.timing.interval)
}

// Return gives the entry seq, which Next has returned and which could not be
// delivered, back to the queue: Next returns it again, before any later one.
// Returning one twice, or one that was acknowledged or dropped, does nothing.
func (q *Queue) Return(seq uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case seq >= q.pos:
		q.held.remove(seq)
	case seq < q.state.cursor || q.state.done.contains(seq):
		return
	default:
		if seq+1 < q.pos {
			for _, s := range q.state.done.missing(span{seq + 1, q.pos - 1}) {
				q.held.add(s)
			}
		}
		q.pos = seq
	}
	q.wakeNext()
}

func (q *Queue) wakeNext() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
