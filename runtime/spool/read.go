package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Next returns the oldest entry that it has not returned since Open and that is
// not acknowledged, and waits for one until ctx ends: when ctx has ended it returns what is there. While 16,384 entries are
// handed out and not acknowledged, it waits too.
//
// An error that is neither ctx's nor ErrClosed is of the disk. Next can be called
// again, better after a while: after three such errors in a row it gives up the
// rest of a segment, and counts the loss.
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
		for i := q.state.done.index(q.pos); i < len(q.state.done) && q.state.done[i].first <= q.pos; i++ {
			q.pos = q.state.done[i].last + 1
		}
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
			if q.failures++; q.failures < maxFailures {
				q.mu.Unlock()
				return Entry{}, fmt.Errorf("read queue %s: entry %d: %w", q.dir, pos, err)
			}
			found = end
			q.srcOff = limit
		}
		q.failures = 0
		if found != pos {
			n := q.state.lose(span{pos, found - 1}, Corrupt)
			q.pos = max(found, q.state.cursor)
			q.loss, q.dirty = true, true
			q.arm(q.timing.interval)
			q.mu.Unlock()
			q.log.Error("entries of the queue are damaged, skipped", "queue", q.dir, "entries", n, "first", pos, "error", err)
			continue
		}
		q.pos++
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
	return q.pos - q.state.cursor - q.state.done.below(q.pos)
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
	q.src.limit = limit
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
			return nil, 0, err
		case r.kind != kindEvent || r.seq < pos:
			q.srcOff += r.size()
		case r.seq >= end: // written again in the next segment
			return nil, end, nil
		case r.seq > pos:
			return nil, r.seq, nil
		default:
			q.srcOff += r.size()
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

// Ack takes the entry seq, which Next has returned, out of the queue. Acknowledging
// one twice, or one that was dropped, does nothing.
func (q *Queue) Ack(seq uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if seq < q.state.cursor || seq >= q.pos || q.state.done.contains(seq) {
		return
	}
	if q.inFlight() >= maxInFlight {
		q.wakeNext()
	}
	q.state.finish(span{seq, seq})
	q.pos = max(q.pos, q.state.cursor) // over what an earlier process acknowledged
	q.counts.acked++
	q.dirty = true
	q.arm(q.timing.interval)
}

func (q *Queue) wakeNext() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
