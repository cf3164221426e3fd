// Package spool is a queue on disk that survives kill -9 and power cuts: what was
// appended comes out in order, under the sequence number it was given, again after
// every restart until it is acknowledged.
//
// # Promises
//
// Sequence numbers start at 1 and have no gap but those in Stats.Gaps; they
// survive restarts. Next hands out only what is synced, so that a number which
// left the machine is never given to another entry. With SyncAlways an entry is
// synced when Append returns. With SyncEverySecond it is within a second, and at
// once when the last sync is longer ago; a power cut takes at most that second's
// entries, which nobody has seen, and their numbers are used again. A kill -9 takes
// nothing under either.
//
// Acknowledgements are written at most once a second and not synced on their own:
// losing one means that an entry comes twice.
//
// An append that failed with an error may still come out after a crash.
//
// # When there is no room
//
// The oldest entries go for new ones, a segment at a time, when the queue would
// exceed its size, which is at most half of the file system's; and when the file
// system is full, as long as 256 KiB and the last segment stay. Should the room
// that was made so be gone before half of it was used, then another program fills
// the file system, which all the entries would not stop: what Append is given is
// refused for half a minute, before the next segment goes, and for twice as long
// each time it happens again, up to an hour. What is dropped is told in Stats.
//
// # On disk
//
// The directory holds segments, named by the first sequence number in them:
// 00000000000000000001.spool1 and so on. A segment is a run of records with a
// CRC-32C each (see record.go): events, and now and then the state, that is what is
// acknowledged and what was lost. The state is in it from its beginning, so that the
// segments before it can go. It is written under the name "new", synced, and
// renamed; later records are appended, and none is written again but those that
// were not certainly synced when a sync failed or the process was killed. The last
// segment stays, also when all in it is acknowledged, to keep the sequence.
//
// An event costs its length and 16 bytes; the state costs 16 bytes a second at
// most, and a little per segment, when acknowledgements come in order. The disk
// makes whole pages of it, and the file system its journal: by BenchmarkAppend an
// event of 1,000 bytes is 1,016 bytes written, 5.1 KB in pages when each is synced
// alone and 1,020 bytes under load with SyncEverySecond; with its metadata ext4 made
// 9.3 KB at the device of one synced alone.
package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	suffix      = ".spool1" // a format that this code cannot read gets another
	newName     = "new"     // a segment that is not yet complete
	maxUnsynced = 1 << 20   // bytes kept in memory until synced
	maxInFlight = 16384     // handed out and not acknowledged, the most that Next allows
	maxRetries  = 30        // times timing.retry is the longest between attempts to start a segment
	maxFailures = 3         // of reading a segment, before what cannot be read of it is given up
	minKept     = 256 << 10 // bytes that do not go for new entries on a full file system
	probeEvery  = 5         // intervals, after a failure
	maxPause    = time.Hour // between drops, while another program fills it
)

var (
	// ErrClosed is returned by Append and Next after Close.
	ErrClosed = errors.New("queue is closed")
	// ErrTooLarge is returned by Append for a payload that no segment can hold.
	ErrTooLarge = errors.New("payload too large for the queue")
)

// Entry is what Next returns.
type Entry struct {
	Seq     uint64
	Payload []byte // the caller's
}

// segment is one file. base is the sequence number that its first event has or
// would have.
type segment struct {
	base   uint64
	size   int64 // that the file has
	synced int64 // up to where it may be read
	f      file  // of the last segment when it can be written, else nil
}

func (s *segment) name() string { return segmentName(s.base) }

// named gives err the name of s in place of the one that its file was made under.
func (s *segment) named(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return &fs.PathError{Op: p.Op, Path: s.name(), Err: p.Err}
	}
	return err
}

func segmentName(base uint64) string { return fmt.Sprintf("%020d", base) + suffix }

// parseName returns the base in the name of a segment, 0 for any other name.
func parseName(name string) uint64 {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0
	}
	base, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || base > maxSeq {
		return 0
	}
	return base
}

// Queue is safe for concurrent use. One goroutine is meant to append, one to call
// Next, and any to acknowledge: Ack and Stats never wait for the disk.
type Queue struct {
	dir          string
	disk         disk
	log          *slog.Logger
	sync         Sync
	maxBytes     int64
	segmentBytes int64
	timing       timing

	// write is held by what writes, taken before mu. It guards the next block.
	write    sync.Mutex
	buf      []byte // the record being written
	unsynced []byte // the event records not synced, to write again elsewhere should that fail
	suspect  bool   // nothing may be appended to the last segment: what is unsynced there may be gone
	unlisted bool   // the name of the last segment may not be durable, nothing older may go; implies suspect
	lastSync time.Time
	retry    struct { // of starting a new segment, after a failure
		err  error
		wait time.Duration
		at   time.Time // not before
	}
	full struct { // the file system, when that was noticed last
		again int64         // size of the queue from which on it has used the room that was made
		pause time.Duration // and while it has not, nothing more is dropped
		until time.Time
	}
	kept    int64     // minKept
	refused int       // bytes of the record that could not be written
	probed  time.Time // when it was last tried whether they can

	// read is held by Next. It guards the next block.
	read     chan struct{}
	src      source
	srcFile  file
	srcSeg   *segment // that srcFile is of
	srcOff   int64
	srcPos   uint64 // none before is at or after srcOff
	failures int

	wake    chan struct{} // tells Next that there may be more
	closing chan struct{}

	mu       sync.Mutex // never held during I/O
	segments []*segment // ascending; what is in them is changed under write and mu
	bytes    int64      // of all segments
	next     uint64     // for the next Append
	durable  uint64     // all below is synced
	pos      uint64     // next to hand out; all before is handed out or done
	taken    uint64     // all before has been handed out, or is done
	held     spans      // handed out, not done, and after pos since one before was returned
	state    state
	dirty    bool // state is newer than what is written of it
	loss     bool // and so is its part about losses
	timer    *time.Timer
	armed    bool
	closed   bool
	failure  error
	counts   counts
}

// Open opens the queue in the directory dir, or creates it, for this process
// alone. The directory must belong to the user of this process and not be writable
// by others. Damage is repaired and counted, not an error, also where the disk
// cannot be read: as many entries count as lost as may have been there. A queue that
// cannot be written, as on a read-only file system, can be read: Stats says why at once,
// and Append returns it.
//
// What it takes to open depends on the size of a segment, not of the queue.
func Open(dir string, c Config) (*Queue, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", dir, err)
	}
	d, err := openDirectory(dir, syncDirectory)
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	q, err := open(d, dir, c, defaultTiming)
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("open queue %s: %w", dir, err)
	}
	q.write.Lock()
	defer q.write.Unlock()
	if err := q.try(1); err != nil { // who watches is told before there is an event to lose
		q.fail("try", err)
	}
	return q, nil
}

func open(d disk, dir string, c Config, t timing) (*Queue, error) {
	q := &Queue{
		dir: dir, disk: d, log: c.Logger, sync: c.Sync, maxBytes: c.MaxBytes, timing: t,
		read:    make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		next:    1,
		durable: 1,
		kept:    minKept,
	}
	q.state.cursor = 1
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	if q.maxBytes == 0 {
		q.maxBytes = defaultMaxBytes
	}
	if n := d.Capacity(); n > 0 && q.maxBytes > max(n/2, minMaxBytes) {
		q.maxBytes = max(n/2, minMaxBytes)
		q.log.Warn("queue limited to half of its file system", "queue", dir, "bytes", q.maxBytes, "file_system", n)
	}
	q.segmentBytes = min(q.maxBytes/16, maxSegmentBytes)
	q.timer = time.AfterFunc(time.Hour, q.tick)
	q.timer.Stop()

	names, err := d.List()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if name == newName {
			if err := d.Remove(name); err != nil { // it is tried again before it is used
				q.fail("remove "+newName, err)
			}
		}
		if base := parseName(name); base != 0 {
			q.segments = append(q.segments, &segment{base: base})
		}
	}
	slices.SortFunc(q.segments, func(a, b *segment) int {
		if a.base < b.base {
			return -1
		}
		return 1
	})
	if len(q.segments) > 0 {
		if err := q.recover(); err != nil {
			if f := q.last().f; f != nil {
				f.Close()
			}
			return nil, err
		}
	}
	q.pos = q.state.cursor
	if q.dirty || q.suspect || q.failure != nil {
		q.mu.Lock()
		q.arm(q.timing.interval)
		q.mu.Unlock()
	}
	return q, nil
}

// recover learns from the segments what was, and makes the last one fit to
// be appended to.
func (q *Queue) recover() error {
	for _, s := range q.segments {
		f, err := q.disk.Open(s.name(), os.O_RDONLY)
		if err != nil {
			return err
		}
		s.size, err = f.Size()
		f.Close()
		if err != nil {
			return err
		}
		s.synced = s.size
		q.bytes += s.size
	}
	last := q.last()
	f, err := q.disk.Open(last.name(), os.O_RDWR)
	if err == nil {
		last.f = f
	} else { // for reading it will do
		q.fail("open", err)
		if f, err = q.disk.Open(last.name(), os.O_RDONLY); err != nil {
			return err
		}
		defer f.Close()
	}
	rescue := &salvage{r: f}
	src := source{r: rescue, limit: last.size}
	c, torn, err := src.scan(last.base)
	if err != nil {
		return err
	}
	q.next = c.next
	last.synced = c.end
	if torn {
		q.counts.torn++
		q.counts.tornBytes += uint64(last.size - c.end)
		q.log.Warn("queue ended in an incomplete write, cut off", "queue", q.dir, "bytes", last.size-c.end, "next", c.next)
		q.dirty = true
	}
	end, proven := c.end, c.proven

	// The state is at the beginning of the last segment. Should that be damaged,
	// an older one makes acknowledged entries come again, and no worse.
	state := c
	for i := len(q.segments) - 2; i >= 0 && state.state == 0; i-- {
		s := q.segments[i]
		f, err := q.disk.Open(s.name(), os.O_RDONLY)
		if err != nil {
			return err
		}
		older := source{r: &salvage{r: f}, limit: s.size}
		state, _, err = older.scan(s.base)
		f.Close()
		if err != nil {
			return err
		}
		q.dirty = true
	}
	if state.state != 0 {
		q.state.restore(&state)
	}
	if first := q.segments[0].base; first > q.state.cursor { // what was before is gone, as acknowledged segments are
		q.state.finish(span{q.state.cursor, first - 1})
	}
	// What is acknowledged was handed out, even if it can no longer be found.
	q.next = max(q.next, q.state.cursor)
	if n := len(q.state.done); n > 0 {
		q.next = max(q.next, q.state.done[n-1].last+1)
	}
	q.loss = q.dirty
	q.durable = q.next
	if rescue.err != nil {
		q.skip(rescue, &c)
		return nil
	}
	if last.f == nil {
		return nil
	}
	if !torn && proven.next == c.next {
		if err := q.disk.Sync(); err != nil { // its name may be new
			q.fail("sync", err)
			q.suspect, q.unlisted = true, true
		}
		return nil
	}

	// What is behind the last barrier may be in memory only, and of a sync that has
	// failed (and that an earlier process was killed for) nobody would tell: it is
	// written again before it is handed out.
	src.limit = end
	if end-proven.end <= 2*maxUnsynced+maxPayload {
		q.unsynced, err = src.events(proven.end)
	} else { // no queue writes that
		err = errors.New("too much that was not synced")
	}
	if err == nil {
		last.synced, q.durable, q.suspect = proven.end, proven.next, true
		err = q.renew()
	}
	if err != nil { // better twice than not at all
		q.fail("start a new segment", err)
		last.synced = end
		if s := q.last(); s != last {
			s.synced = s.size
		}
		q.durable, q.unsynced, q.suspect = q.next, nil, true
	}
	return nil
}

// skip leaves the last segment, of whose file a part cannot be read, to the reader.
// No number is given again that an entry in there may have had.
func (q *Queue) skip(file *salvage, c *content) {
	last := q.last()
	next := c.seen.next
	if file.unreadable(c.seen.end) {
		next += uint64(last.size-c.seen.end) / headerLen
	}
	next = min(next, c.next+uint64(last.size-c.end)/headerLen)
	n := uint64(0)
	if next > q.next {
		n = q.state.lose(span{q.next, next - 1}, Corrupt)
		q.loss, q.dirty = true, true
		q.next, q.durable = next, next
	}
	q.suspect = true
	q.log.Error("queue cannot be read in places", "queue", q.dir, "error", file.err, "lost_at_the_end", n)
	if last.f == nil {
		return
	}
	if err := errors.Join(last.f.Sync(), q.disk.Sync()); err != nil {
		q.fail("sync", err)
		q.unlisted = true
	}
}

func (q *Queue) last() *segment { return q.segments[len(q.segments)-1] }

// Close writes what there is to write, syncs it and closes the queue. Waiting and
// later calls of Next return ErrClosed; Ack does nothing any more. Its error says
// what is not on the disk. It is safe to call twice.
func (q *Queue) Close() error {
	q.write.Lock()
	defer q.write.Unlock()
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	q.timer.Stop()
	close(q.closing)
	q.mu.Unlock()

	q.retry.at = time.Time{}
	err := q.settle(true)
	if err == nil && q.counts.appended > 0 && !q.suspect {
		q.mu.Lock()
		q.dirty = true // a barrier, so that Open need not write anything again
		q.mu.Unlock()
		q.save()
	}
	if len(q.segments) > 0 && q.last().f != nil {
		s := q.last()
		switch {
		case s.synced == s.size:
		case q.suspect: // an entry in there that was refused must not come out
			err = errors.Join(err, s.f.Truncate(s.synced))
		default:
			err = errors.Join(err, q.flushAll())
		}
		err = errors.Join(err, s.f.Close())
	}
	q.read <- struct{}{}
	q.closeSource()
	<-q.read
	err = errors.Join(err, q.disk.Close())
	if err != nil {
		if n := q.next - q.durable; n > 0 {
			err = fmt.Errorf("%d entries not written: %w", n, err)
		}
		return fmt.Errorf("close queue %s: %w", q.dir, err)
	}
	return nil
}
