package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"
)

// Append adds what encode returns for the sequence number it is called with, and
// returns that number. Should encode return an error, or Append for any other
// reason, then the number goes to the next entry. The slice can be used again
// afterwards.
//
// It waits for the disk, not for Next. When the queue would exceed its size, or the
// file system is full, the oldest entries are dropped; the package comment says
// when it is the new one that is refused. After an error, such as of a full or
// read-only disk, what is in the queue can be read, and a later Append tries again;
// to start a new file, half a minute later at the latest.
func (q *Queue) Append(encode func(seq uint64) ([]byte, error)) (seq uint64, err error) {
	q.write.Lock()
	defer q.write.Unlock()
	if q.closed {
		return 0, fmt.Errorf("append to queue %s: %w", q.dir, ErrClosed)
	}
	seq = q.next
	payload, err := encode(seq)
	if err != nil {
		return 0, fmt.Errorf("append to queue %s: encode entry %d: %w", q.dir, seq, err)
	}
	if most := min(maxPayload, q.maxBytes/4-headerLen); int64(len(payload)) > most {
		return 0, fmt.Errorf("append to queue %s: %w: %d bytes, at most %d", q.dir, ErrTooLarge, len(payload), most)
	}
	err = q.append(payload)
	if noSpace(err) {
		if err = q.makeRoom(int64(headerLen+len(payload)), err); err == nil {
			err = q.append(payload)
		}
	}
	if err != nil {
		q.refused = headerLen + len(payload)
		q.fail("append", err)
		return 0, fmt.Errorf("append to queue %s: %w", q.dir, err)
	}
	q.mu.Lock()
	q.counts.appended++
	q.mu.Unlock()
	q.works()
	return seq, nil
}

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

func (q *Queue) append(payload []byte) error {
	n := int64(headerLen + len(payload))
	if err := q.room(n); err != nil {
		return err
	}
	s := q.last()
	r := record{kindEvent, s.size == s.synced, q.next, payload}
	q.buf = r.append(q.buf[:0])
	if err := q.put(q.buf); err != nil {
		return err
	}
	q.unsynced = append(q.unsynced, q.buf...)
	if cap(q.buf) > maxUnsynced {
		q.buf = nil
	}
	q.mu.Lock()
	q.next++
	q.mu.Unlock()

	if q.sync == SyncEverySecond && len(q.unsynced) < maxUnsynced && q.timing.now().Sub(q.lastSync) < q.timing.interval {
		q.mu.Lock()
		q.arm(q.timing.interval)
		q.mu.Unlock()
		return nil
	}
	if err := q.flush(); err != nil {
		// The entries before this one stay in unsynced, for a new segment.
		q.unsynced = q.unsynced[:int64(len(q.unsynced))-n]
		q.mu.Lock()
		q.next--
		if q.durable < q.next {
			q.arm(q.timing.interval)
		}
		q.mu.Unlock()
		return err
	}
	return nil
}

// room makes the last segment fit to take a record of n bytes.
func (q *Queue) room(n int64) error {
	if len(q.segments) == 0 || q.last().f == nil || q.suspect {
		if err := q.renew(); err != nil {
			return err
		}
	}
	q.reap()
	if s := q.last(); s.size+n > q.segmentBytes && (q.next > s.base || s.size > q.segmentBytes) {
		if err := q.rotate(); err != nil {
			return err
		}
	}
	for q.bytes+n+stateReserve > q.maxBytes {
		if len(q.segments) == 1 {
			if q.next == q.last().base {
				return nil // nothing to drop: n and the state are less than maxBytes
			}
			if err := q.rotate(); err != nil {
				return err
			}
			continue
		}
		if err := q.drop("queue"); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom drops entries, the oldest first, for a record of n bytes on a file system
// that is full. It returns that error when it must not.
func (q *Queue) makeRoom(n int64, full error) error {
	keep := q.kept
	if len(q.segments) > 0 {
		keep = max(keep, q.last().size)
	}
	droppable := func() bool { return len(q.segments) > 1 && q.bytes-q.segments[0].size >= keep }
	now := q.timing.now()
	if q.bytes >= q.full.again {
		q.full.pause = 0
	} else if now.Before(q.full.until) {
		return full
	}
	if !droppable() {
		return full
	}
	goal := q.bytes - max(n, q.segmentBytes/2)
	q.full.again = (q.bytes + goal) / 2
	q.full.pause = min(max(2*q.full.pause, maxRetries*q.timing.retry), maxPause)
	q.full.until = now.Add(q.full.pause)
	q.retry.at = time.Time{}
	for q.bytes > goal && droppable() {
		count := len(q.segments)
		if q.suspect || q.last().f == nil {
			if err := q.empty(); err != nil {
				return err
			}
			if err := q.renew(); err != nil {
				return err
			}
			count = len(q.segments)
		}
		if err := q.drop("file system"); err != nil {
			return err
		}
		if len(q.segments) == count {
			break
		}
	}
	return nil
}

// empty gives the blocks of the oldest segment back before its loss is written, when
// that needs them. Until it is, the reader finds that its entries are damaged, after
// a crash too.
func (q *Queue) empty() error {
	s := q.segments[0]
	f, err := q.disk.Open(s.name(), os.O_RDWR)
	if err != nil {
		return err
	}
	err = f.Truncate(0)
	f.Close()
	if err != nil {
		return err
	}
	q.mu.Lock()
	q.bytes -= s.size
	s.size, s.synced = 0, 0
	q.mu.Unlock()
	return nil
}

// drop loses the oldest segment, because of what is full. The loss is on disk before
// the segment goes.
func (q *Queue) drop(full string) error {
	lost := span{q.segments[0].base, q.segments[1].base - 1}
	q.mu.Lock()
	after := q.state.clone()
	q.mu.Unlock()
	after.lose(lost, Full)
	s := q.last()
	told := after.append(nil, true, s.size == s.synced)
	err := q.put(told)
	if noSpace(err) && !q.suspect {
		if err := q.empty(); err != nil {
			return err
		}
		err = q.put(told)
	}
	if err != nil {
		return err
	}
	if err := q.flushAll(); err != nil {
		return err
	}
	q.mu.Lock()
	n := q.state.lose(lost, Full)
	q.advance(q.pos)
	q.wakeNext()
	q.mu.Unlock()
	if n > 0 {
		q.log.Warn(full+" full, oldest entries of the queue dropped", "queue", q.dir, "entries", n, "last", lost.last)
	}
	return q.reap()
}

// reap removes the segments that hold nothing any more, oldest first, also after
// a power cut: a hole between them would look like damage.
func (q *Queue) reap() error {
	for {
		if q.unlisted {
			return nil
		}
		q.mu.Lock()
		if len(q.segments) < 2 || q.state.cursor < q.segments[1].base {
			q.mu.Unlock()
			return nil
		}
		s := q.segments[0]
		q.mu.Unlock()
		if err := q.disk.Remove(s.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := q.disk.Sync(); err != nil {
			return err
		}
		q.mu.Lock()
		q.segments = slices.Delete(q.segments, 0, 1)
		q.bytes -= s.size
		q.mu.Unlock()
	}
}

// put appends records to the last segment, or leaves it as it was.
func (q *Queue) put(records []byte) error {
	s := q.last()
	n, err := s.f.WriteAt(records, s.size)
	kept := len(records)
	if err != nil {
		kept = 0
		if s.f.Truncate(s.size) != nil {
			q.suspect = true
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.counts.written += uint64(n)
	s.size += int64(kept)
	q.bytes += int64(kept)
	return s.named(err)
}

// flush syncs the events that are not.
func (q *Queue) flush() error {
	if q.durable == q.next {
		return nil
	}
	return q.flushAll()
}

// flushAll syncs the last segment. After a failure nothing can be said of what the
// disk holds of the unsynced part, even if a second attempt succeeds (on Linux it
// would: the error is told once): it is written again into a new segment.
func (q *Queue) flushAll() error {
	s := q.last()
	err := s.f.Sync()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.counts.syncs++
	if err != nil {
		q.suspect = true
		q.counts.syncErrors++
		return s.named(err)
	}
	q.synced(s)
	return nil
}

// synced notes that all is; mu is held.
func (q *Queue) synced(s *segment) {
	q.unlisted = false
	s.synced = s.size
	q.durable = q.next
	q.unsynced = q.unsynced[:0]
	if cap(q.unsynced) > 2*maxUnsynced {
		q.unsynced = nil
	}
	q.lastSync = q.timing.now()
	q.wakeNext()
}

func (q *Queue) rotate() error {
	if err := q.flush(); err != nil {
		return err
	}
	return q.renew()
}

// renew starts a new segment, in which all unsynced entries are written again,
// unless that failed a moment ago: on a broken disk attempts are wear.
func (q *Queue) renew() error {
	if q.timing.now().Before(q.retry.at) {
		return q.retry.err
	}
	err := q.newSegment()
	if err == nil {
		q.retry.wait, q.retry.at = 0, time.Time{}
		return nil
	}
	q.retry.wait = min(max(2*q.retry.wait, q.timing.retry), maxRetries*q.timing.retry)
	q.retry.at = q.timing.now().Add(q.retry.wait)
	q.retry.err = err
	return err
}

func (q *Queue) newSegment() error {
	q.mu.Lock()
	s := &segment{base: q.durable}
	content := q.state.append(slices.Clone(q.unsynced), true, true) // all of it is synced before it gets its name
	q.mu.Unlock()
	f, err := q.create()
	if err != nil {
		return err
	}
	n, err := f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = q.disk.Rename(newName, s.name())
	}
	q.mu.Lock()
	q.counts.written += uint64(n)
	q.counts.syncs++
	q.mu.Unlock()
	if err != nil {
		f.Close()
		q.disk.Remove(newName)
		return err
	}
	// From here on the new segment is the last, whatever happens: it may have taken
	// the place of one without events.
	s.f, s.size = f, int64(len(content))
	var old *segment
	var cut file // what is unsynced in old goes once it is durable in the new one
	if len(q.segments) > 0 {
		old = q.last()
		if old.f != nil && q.suspect && old.base != s.base {
			cut = old.f
		} else if old.f != nil {
			old.f.Close()
		}
	}
	q.mu.Lock()
	if old != nil {
		old.f = nil
		if old.base == s.base {
			q.segments = q.segments[:len(q.segments)-1]
			q.bytes -= old.size
		}
	}
	q.segments = append(q.segments, s)
	q.bytes += s.size
	q.suspect, q.unlisted = false, true
	q.mu.Unlock()

	err = q.disk.Sync()
	cutOff := false
	if cut != nil {
		cutOff = err == nil && cut.Truncate(old.synced) == nil
		cut.Close()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if cutOff {
		q.bytes -= old.size - old.synced
		old.size = old.synced
	}
	if err != nil {
		q.suspect = true
		q.counts.syncErrors++
		return err
	}
	q.synced(s)
	return nil
}

// create makes the file for a new segment. What is there under its name, a link of
// another user's too, is not written to.
func (q *Queue) create() (file, error) {
	if err := q.disk.Remove(newName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return q.disk.Open(newName, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

// probe tries whether what was refused could be written, without an event to write.
func (q *Queue) probe() error {
	if len(q.segments) == 0 || q.last().f == nil || q.suspect {
		if err := q.renew(); err != nil {
			return err
		}
	}
	return q.try(max(q.refused, 1))
}

// try writes n bytes to a file of their own, which goes again.
func (q *Queue) try(n int) error {
	f, err := q.create()
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, n), 0)
	f.Close()
	return errors.Join(err, q.disk.Remove(newName))
}

// works notes that the queue can be written.
func (q *Queue) works() {
	q.mu.Lock()
	failed := q.failure != nil
	q.failure = nil
	q.mu.Unlock()
	if failed {
		q.log.Info("queue can be written again", "queue", q.dir)
	}
}

// fail notes why the queue cannot be written.
func (q *Queue) fail(what string, err error) {
	q.mu.Lock()
	first := q.failure == nil
	q.failure = err
	q.arm(q.timing.interval)
	q.mu.Unlock()
	if first {
		q.log.Error("queue cannot be written", "queue", q.dir, "doing", what, "error", err)
	}
}

// arm makes tick run after d, or sooner; mu is held. There is no timer running
// while there is nothing to write and nothing failed.
func (q *Queue) arm(d time.Duration) {
	if !q.armed && !q.closed {
		q.armed = true
		q.timer.Reset(d)
	}
}

// tick writes what has waited for an interval. After a failure it tries every few
// intervals, until it succeeds.
func (q *Queue) tick() {
	q.write.Lock()
	defer q.write.Unlock()
	q.mu.Lock()
	q.armed = false
	closed, failing := q.closed, q.failure != nil
	q.mu.Unlock()
	if closed {
		return
	}
	now := q.timing.now()
	wait := q.timing.interval - now.Sub(q.lastSync)
	if failing {
		if now.Before(q.probed.Add(probeEvery * q.timing.interval)) {
			q.mu.Lock()
			q.arm(q.timing.interval)
			q.mu.Unlock()
			return
		}
		q.probed = now
	}
	err := q.settle(wait <= 0)
	if err == nil && failing {
		if err = q.probe(); err == nil {
			q.works()
		}
	}
	if err != nil {
		q.fail("write", err)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.durable < q.next {
		q.arm(max(wait, 0))
	}
}

// settle removes what can go, writes the state and, if sync, syncs the events.
func (q *Queue) settle(sync bool) error {
	if len(q.segments) == 0 {
		return nil
	}
	err := q.reap()
	q.mu.Lock()
	due := q.dirty || q.durable < q.next || q.suspect
	q.mu.Unlock()
	if !due {
		return err
	}
	if q.last().f == nil || q.suspect {
		if failed := q.renew(); failed != nil {
			return errors.Join(err, failed)
		}
	}
	err = errors.Join(err, q.save())
	if sync && !q.suspect {
		err = errors.Join(err, q.flush())
	}
	return err
}

// save writes the state if it has changed. It does not sync it.
func (q *Queue) save() error {
	s := q.last()
	q.mu.Lock()
	if !q.dirty {
		q.mu.Unlock()
		return nil
	}
	loss := q.loss
	records := q.state.append(nil, loss, s.size == s.synced)
	fits := q.bytes+int64(len(records)) <= q.maxBytes
	if fits {
		q.dirty, q.loss = false, false
	}
	q.mu.Unlock()
	if !fits {
		return nil // an append makes room first
	}
	err := q.put(records)
	if err != nil {
		q.mu.Lock()
		q.dirty, q.loss = true, q.loss || loss
		q.mu.Unlock()
	}
	return err
}
