package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func openTest(t testing.TB, dir string, c Config) *Queue {
	t.Helper()
	os.Chmod(dir, 0o700) // where the umask lets a group write
	q, err := Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func openMem(t testing.TB, d *memDisk, c Config) *Queue {
	t.Helper()
	q, err := open(d, "mem", c, timing{now: time.Now, interval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

// add appends n entries whose payload is "entry <seq>" and then size-n bytes.
func add(t testing.TB, q *Queue, n, size int) {
	t.Helper()
	for range n {
		if _, err := q.Append(func(seq uint64) ([]byte, error) { return payloadOf(seq, size), nil }); err != nil {
			t.Fatal(err)
		}
	}
}

func payloadOf(seq uint64, size int) []byte {
	p := fmt.Appendf(nil, "entry %d ", seq)
	for len(p) < size {
		p = append(p, byte(seq))
	}
	return p
}

// drain returns the numbers of what is there, whose payloads it checks.
func drain(t testing.TB, q *Queue, size int) (seqs []uint64) {
	t.Helper()
	for {
		e, err := q.Next(done)
		if errors.Is(err, context.Canceled) {
			return seqs
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(e.Payload, payloadOf(e.Seq, size)) {
			t.Fatalf("entry %d: %.40q", e.Seq, e.Payload)
		}
		seqs = append(seqs, e.Seq)
	}
}

func upTo(first, last uint64) (s []uint64) {
	for ; first <= last; first++ {
		s = append(s, first)
	}
	return s
}

func equal(t testing.TB, what string, got, want []uint64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestQueue(t *testing.T) {
	for _, sync := range []Sync{SyncAlways, SyncEverySecond} {
		t.Run(sync.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "queue")
			q := openTest(t, dir, Config{Sync: sync})
			add(t, q, 10, 0)
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			q = openTest(t, dir, Config{Sync: sync})
			equal(t, "opened again", drain(t, q, 0), upTo(1, 10))
			equal(t, "then", drain(t, q, 0), nil)
			for _, seq := range []uint64{4, 2, 1, 10, 7, 7, 99, 0} {
				q.Ack(seq)
			}
			if st := q.Stats(); st.Pending != 5 || st.Oldest != 3 || st.Next != 11 || st.InFlight != 5 || st.Acked != 5 {
				t.Errorf("stats %+v", st)
			}
			if err := errors.Join(q.Close(), q.Close()); err != nil {
				t.Fatal(err)
			}
			q = openTest(t, dir, Config{Sync: sync})
			equal(t, "after acknowledgements in disorder", drain(t, q, 0), []uint64{3, 5, 6, 8, 9})
			for _, seq := range []uint64{3, 5, 6, 8, 9} {
				q.Ack(seq)
			}
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			q = openTest(t, dir, Config{Sync: sync})
			equal(t, "all acknowledged", drain(t, q, 0), nil)
			add(t, q, 1, 0)
			q.Close()
			q = openTest(t, dir, Config{Sync: sync})
			equal(t, "the sequence goes on", drain(t, q, 0), []uint64{11})
		})
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{MaxBytes: minMaxBytes})
	wrong := errors.New("no such number")
	for _, c := range []struct {
		name   string
		encode func(uint64) ([]byte, error)
		want   error
	}{
		{"encoding fails", func(uint64) ([]byte, error) { return nil, wrong }, wrong},
		{"too large", func(uint64) ([]byte, error) { return make([]byte, minMaxBytes/4), nil }, ErrTooLarge},
	} {
		if _, err := q.Append(c.encode); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if seq, err := q.Append(func(seq uint64) ([]byte, error) { return make([]byte, minMaxBytes/4-headerLen), nil }); seq != 1 || err != nil {
		t.Errorf("the largest: entry %d, %v", seq, err)
	}
	if _, err := Open(dir, Config{}); !errors.Is(err, errLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := Open(dir, Config{MaxBytes: 1, Sync: 7}); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two mistakes: %v", err)
	}
	if _, err := Open(filepath.Join(dir, segmentName(1)), Config{}); err == nil {
		t.Error("a file was opened as a queue")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	q.Next(ctx)
	if _, err := q.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing to read: %v", err)
	}
	waiting := make(chan error)
	go func() {
		_, err := q.Next(context.Background())
		waiting <- err
	}()
	q.Close()
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Errorf("next during close: %v", err)
	}
	if _, err := q.Append(func(uint64) ([]byte, error) { return nil, nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	q.Ack(1)
	if st := q.Stats(); st.Next != 2 {
		t.Errorf("stats after close: %+v", st)
	}
	openTest(t, dir, Config{})
}

// The timer of SyncEverySecond makes entries durable without another append.
func TestEverySecond(t *testing.T) {
	d := newMemDisk()
	q, err := open(d, "mem", Config{Sync: SyncEverySecond}, timing{now: time.Now, interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	for want := uint64(1); want <= 20; want++ {
		add(t, q, 1, 0)
		if e, err := q.Next(t.Context()); err != nil || e.Seq != want {
			t.Fatalf("entry %d, %v, want %d", e.Seq, err, want)
		}
		q.Ack(want)
	}
}

// What does not fit goes, oldest first, and is accounted for, also afterwards.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{Sync: SyncEverySecond, MaxBytes: minMaxBytes})
	add(t, q, 20, 1000)
	q.flush()
	for range 10 {
		q.Next(done)
	}
	q.Ack(3)
	q.Ack(1)
	for range 1000 {
		add(t, q, 1, 1000)
		if n := dirSize(t, dir); n > minMaxBytes {
			t.Fatalf("%d bytes on disk", n)
		}
	}
	st := q.Stats()
	q.Close()
	q = openTest(t, dir, Config{MaxBytes: minMaxBytes})
	got := drain(t, q, 1000)
	again := q.Stats()
	if len(got) < 200 || got[len(got)-1] != 1020 {
		t.Fatalf("left: %v", got)
	}
	equal(t, "left", got, upTo(got[0], 1020))
	if want := got[0] - 1 - 2; again.Dropped != want || st.Dropped != want {
		t.Errorf("dropped %d, after a restart %d, want %d", st.Dropped, again.Dropped, want)
	}
	want := []Gap{{2, 2, Full}, {4, got[0] - 1, Full}}
	if !slices.Equal(st.Gaps, want) || !slices.Equal(again.Gaps, want) {
		t.Errorf("gaps %v, after a restart %v, want %v", st.Gaps, again.Gaps, want)
	}
}

func dirSize(t *testing.T, dir string) (n int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

// Segments go when all in them is acknowledged, and the last one does not grow by
// acknowledgements alone.
func TestReap(t *testing.T) {
	d := newMemDisk()
	q := openMem(t, d, Config{MaxBytes: minMaxBytes})
	for range 2000 {
		add(t, q, 1, 500)
		e, err := q.Next(done)
		if err != nil {
			t.Fatal(err)
		}
		q.Ack(e.Seq)
		if n := len(d.names); n > 2 {
			t.Fatalf("%d files", n)
		}
	}
	add(t, q, 400, 500)
	for q.Stats().Pending > 0 {
		e, err := q.Next(done)
		if err != nil {
			t.Fatal(err)
		}
		q.Ack(e.Seq)
		q.tick()
	}
	if n := len(d.names); n != 1 {
		t.Errorf("%d files", n)
	}
	add(t, q, 1, 0)
	equal(t, "left", drain(t, q, 0), []uint64{2401})
	if st := q.Stats(); st.Dropped+st.Corrupt != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestInFlightLimit(t *testing.T) {
	q := openMem(t, newMemDisk(), Config{Sync: SyncEverySecond})
	add(t, q, maxInFlight+1, 0)
	q.flush()
	if n := len(drain(t, q, 0)); n != maxInFlight {
		t.Fatalf("%d handed out", n)
	}
	go q.Ack(7)
	if e, err := q.Next(t.Context()); err != nil || e.Seq != maxInFlight+1 {
		t.Errorf("entry %d, %v", e.Seq, err)
	}
}

// Damage behind which there is proof of a sync costs what it hit; at the end of
// the file it is what a crash leaves.
func TestDamage(t *testing.T) {
	const size = 100
	flip := func(rec int) func([]byte) []byte {
		return func(b []byte) []byte { b[offset(b, rec)+headerLen+20] ^= 1; return b }
	}
	for _, c := range []struct {
		name    string
		damage  func([]byte) []byte // of the only segment, with the entries 1 to 10
		want    []uint64
		corrupt uint64
		torn    uint64
		next    uint64
	}{
		{"none", func(b []byte) []byte { return b }, upTo(1, 10), 0, 0, 11},
		{"a bit of an entry", flip(5), []uint64{1, 2, 3, 4, 6, 7, 8, 9, 10}, 1, 0, 11},
		{"a bit of the first", flip(1), upTo(2, 10), 1, 0, 11},
		{"a bit of the last", flip(10), upTo(1, 9), 0, 1, 10},
		{"a length", func(b []byte) []byte { b[offset(b, 5)+6] = 0xff; return b }, []uint64{1, 2, 3, 4, 6, 7, 8, 9, 10}, 1, 0, 11},
		{"a sequence number", func(b []byte) []byte { b[offset(b, 5)+8]++; return b }, []uint64{1, 2, 3, 4, 6, 7, 8, 9, 10}, 1, 0, 11},
		{"zeros over three", func(b []byte) []byte { clear(b[offset(b, 4)+10 : offset(b, 6)+10]); return b }, []uint64{1, 2, 3, 7, 8, 9, 10}, 3, 0, 11},
		{"the state", func(b []byte) []byte { b[offset(b, 0)] ^= 1; return b }, upTo(1, 10), 0, 0, 11},
		{"cut in the last", func(b []byte) []byte { return b[:len(b)-1] }, upTo(1, 9), 0, 1, 10},
		{"cut in a header", func(b []byte) []byte { return b[:offset(b, 10)+3] }, upTo(1, 9), 0, 1, 10},
		{"cut between records", func(b []byte) []byte { return b[:offset(b, 10)] }, upTo(1, 9), 0, 0, 10},
		{"empty", func([]byte) []byte { return nil }, nil, 0, 0, 1},
		{"garbage at the end", func(b []byte) []byte { return append(b, "garbage that is longer than a header"...) }, upTo(1, 10), 0, 1, 11},
		{"zeros at the end", func(b []byte) []byte { return append(b, make([]byte, 4096)...) }, upTo(1, 10), 0, 1, 11},
		{"an old record at the end", func(b []byte) []byte { return append(b, b[offset(b, 3):offset(b, 4)]...) }, upTo(1, 10), 0, 1, 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newMemDisk()
			add(t, openMem(t, d, Config{}), 10, size)
			n := &inode{data: c.damage(slices.Clone(d.names[segmentName(1)].data))}
			d = newMemDisk()
			d.names[segmentName(1)] = n
			q := openMem(t, d, Config{})
			equal(t, "left", drain(t, q, size), c.want)
			st := q.Stats()
			if st.Corrupt != c.corrupt || st.Torn != c.torn || st.Next != c.next {
				t.Errorf("stats %+v", st)
			}
			add(t, q, 3, size)
			equal(t, "then", drain(t, q, size), upTo(c.next, c.next+2))
			q.Close()
			q = openMem(t, d, Config{})
			equal(t, "opened again", drain(t, q, size), append(c.want, upTo(c.next, c.next+2)...))
			if st := q.Stats(); st.Corrupt != c.corrupt {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

// offset returns where event n (from 1) begins, 0 the first record.
func offset(b []byte, n int) int64 {
	s := source{r: bytes.NewReader(b), limit: int64(len(b))}
	for off := int64(0); ; {
		r, err := s.record(off)
		if err != nil {
			panic(err)
		}
		if n == 0 || r.kind == kindEvent && r.seq == uint64(n) {
			return off
		}
		off += r.size()
	}
}

// A segment that somebody removed is a gap, not the end.
func TestMissingSegment(t *testing.T) {
	d := newMemDisk()
	q := openMem(t, d, Config{MaxBytes: minMaxBytes})
	add(t, q, 100, 1000)
	bases := []uint64{}
	for _, s := range q.segments {
		bases = append(bases, s.base)
	}
	q.Close()
	d.Remove(segmentName(bases[2]))
	q = openMem(t, d, Config{MaxBytes: minMaxBytes})
	equal(t, "left", drain(t, q, 1000), append(upTo(1, bases[2]-1), upTo(bases[3], 100)...))
	if want := []Gap{{bases[2], bases[3] - 1, Corrupt}}; !slices.Equal(q.Stats().Gaps, want) {
		t.Errorf("gaps %v, want %v", q.Stats().Gaps, want)
	}
}

// Acknowledged numbers are never given again, even when their records cannot be
// found.
func TestStateProvesSequence(t *testing.T) {
	d := newMemDisk()
	q := openMem(t, d, Config{})
	add(t, q, 5, 100)
	drain(t, q, 100)
	q.Ack(5)
	q.Close()
	f := d.names[segmentName(1)]
	clear(f.data[offset(f.data, 4):][:200]) // but not the state at the end
	q = openMem(t, d, Config{})
	if st := q.Stats(); st.Next != 6 {
		t.Errorf("next %d", st.Next)
	}
	equal(t, "left", drain(t, q, 100), upTo(1, 3))
	if st := q.Stats(); st.Corrupt != 1 {
		t.Errorf("stats %+v", st)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		op     string
		failed bool // whether Append notices
	}{
		{"write", true}, {"sync", true}, {"truncate", false}, {"rename", false}, {"remove", false}, {"syncdir", false}, {"open", false},
	} {
		t.Run(c.op, func(t *testing.T) {
			d := newMemDisk()
			q := openMem(t, d, Config{})
			add(t, q, 3, 100)
			broken := true
			d.fail = func(op string) error {
				if broken && op == c.op {
					return errFault
				}
				return nil
			}
			seq, err := q.Append(func(seq uint64) ([]byte, error) { return payloadOf(seq, 100), nil })
			if errors.Is(err, errFault) != c.failed {
				t.Errorf("append: %d, %v", seq, err)
			}
			if st := q.Stats(); (st.Err != nil) != c.failed {
				t.Errorf("stats %+v", st)
			}
			equal(t, "while broken", drain(t, q, 100), upTo(1, q.next-1))
			broken = false
			add(t, q, 3, 100)
			if st := q.Stats(); st.Err != nil {
				t.Errorf("stats %+v", st)
			}
			last := q.next - 1
			equal(t, "repaired", drain(t, q, 100), upTo(last-2, last))
			q = openMem(t, d.crash(rand.New(rand.NewPCG(1, 1))), Config{})
			equal(t, "after a power cut", drain(t, q, 100), upTo(1, last))
		})
	}
}

// Reading that fails is told, and the third time given up: of what can be read
// nothing is lost.
func TestReadFaults(t *testing.T) {
	d := newMemDisk()
	q := openMem(t, d, Config{MaxBytes: minMaxBytes})
	add(t, q, 40, 1000)
	d.fail = func(op string) error {
		if op == "read" {
			return errFault
		}
		return nil
	}
	for range maxFailures - 1 {
		if _, err := q.Next(done); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
	}
	d.fail = nil
	f := d.names[segmentName(1)]
	f.bad = []hole{{pageSize + 10, pageSize + 11}}
	lost := hit(f.data, pageSize, 2*pageSize)
	if len(lost) < 4 {
		t.Fatalf("lost: %v", lost)
	}
	equal(t, "left", drain(t, q, 1000), slices.DeleteFunc(upTo(1, 40), func(seq uint64) bool { return slices.Contains(lost, seq) }))
	if st := q.Stats(); st.Corrupt != uint64(len(lost)) {
		t.Errorf("stats %+v", st)
	}
}

// hit returns the events of a segment that have something between the offsets.
func hit(b []byte, from, to int64) (seqs []uint64) {
	s := source{r: bytes.NewReader(b), limit: int64(len(b))}
	for off := int64(0); ; {
		r, err := s.record(off)
		if err != nil {
			return seqs
		}
		if r.kind == kindEvent && off < to && off+r.size() > from {
			seqs = append(seqs, r.seq)
		}
		off += r.size()
	}
}

// What cannot be opened for a while, as without file descriptors, is not lost.
func TestOpenFaults(t *testing.T) {
	d := newMemDisk()
	q := openMem(t, d, Config{})
	add(t, q, 100, 700)
	d.fail = func(op string) error {
		if op == "reopen" {
			return syscall.EMFILE
		}
		return nil
	}
	for range 10 * maxFailures {
		if _, err := q.Next(done); !errors.Is(err, syscall.EMFILE) {
			t.Fatal(err)
		}
	}
	d.fail = nil
	equal(t, "then", drain(t, q, 700), upTo(1, 100))
	if n := q.Stats().Corrupt; n != 0 {
		t.Errorf("%d lost", n)
	}
}

// A disk that cannot be read in places opens, what can be read comes out, and no
// number is given again.
func TestUnreadable(t *testing.T) {
	const size, n = 1000, 200
	for _, c := range []struct {
		name     string
		from, to int64 // of the segment, negative: from the end
		sync     Sync
	}{
		{"the state", 0, 1, SyncAlways},
		{"in the middle", 10 * pageSize, 12 * pageSize, SyncAlways},
		{"the end", -1, 0, SyncAlways},
		{"much of the end", -10 * pageSize, 0, SyncAlways},
		{"the end but the last", -10 * pageSize, -2 * pageSize, SyncAlways},
		{"all", 0, 1 << 40, SyncAlways},
		{"the end, a second's worth", -1, 0, SyncEverySecond},
		{"the middle of a second's worth", 10 * pageSize, 12 * pageSize, SyncEverySecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newMemDisk()
			q := openMem(t, d, Config{Sync: c.sync})
			add(t, q, n, size) // and killed
			f := d.names[segmentName(1)]
			bad := hole{c.from, c.to}
			if bad.from < 0 {
				bad.from += int64(len(f.data))
			}
			if bad.to <= 0 {
				bad.to += int64(len(f.data))
			}
			bad.from -= bad.from % pageSize
			bad.to += (pageSize - bad.to%pageSize) % pageSize
			f.bad = []hole{bad}
			lost := hit(f.data, bad.from, bad.to)

			read := func(q *Queue) (got []uint64) {
				t.Helper()
				for failed := 0; ; {
					e, err := q.Next(done)
					switch {
					case errors.Is(err, syscall.EIO) && failed < 3*maxFailures:
						failed++
						continue
					case errors.Is(err, context.Canceled):
						return got
					case err != nil:
						t.Fatal(err)
					case !bytes.Equal(e.Payload, payloadOf(e.Seq, size)):
						t.Fatalf("entry %d: %.40q", e.Seq, e.Payload)
					}
					got = append(got, e.Seq)
				}
			}
			check := func(q *Queue, added int) {
				t.Helper()
				got := read(q)
				st := q.Stats()
				for seq := uint64(1); seq < st.Next; seq++ {
					explained := false
					for _, g := range st.Gaps {
						explained = explained || g.Reason == Corrupt && g.First <= seq && seq <= g.Last
					}
					if slices.Contains(got, seq) == explained {
						t.Fatalf("entry %d came: %v; gaps %v", seq, !explained, st.Gaps)
					}
					// Behind the damage only what is proven to have been synced comes.
					if seq <= n && slices.Contains(lost, seq) != explained && c.sync == SyncAlways {
						t.Fatalf("entry %d is in %v: %v; its page is unreadable: %v", seq, st.Gaps, explained, !explained)
					}
				}
				if c.sync == SyncAlways && st.Next <= n || len(got) < added || st.Err != nil {
					t.Fatalf("%d came, stats %+v", len(got), st)
				}
			}
			q = openMem(t, d, Config{Sync: c.sync})
			first := q.Stats().Next
			check(q, 0)
			q = openMem(t, d, Config{Sync: c.sync}) // killed before anything was written
			if next := q.Stats().Next; next < first {
				t.Fatalf("opened with next %d, then %d", first, next)
			}
			add(t, q, 3, size)
			q.flushNow()
			check(q, 3)
			next := q.Stats().Next
			q.Close()
			q = openMem(t, d, Config{Sync: c.sync})
			check(q, 3)
			if again := q.Stats().Next; again != next {
				t.Fatalf("closed with next %d, opened with %d", next, again)
			}
		})
	}
}

// A power cut while the last segment is given up for a new one loses nothing that
// was durable.
func TestCutBehindSync(t *testing.T) {
	for seed := range uint64(200) {
		d := newMemDisk()
		add(t, openMem(t, d, Config{}), 5, 100) // and killed
		out := false
		d.fail = func(op string) error {
			if out = out || op == "syncdir"; out {
				return errPower
			}
			return nil
		}
		open(d, "mem", Config{}, timing{now: time.Now, interval: time.Hour}) // writes the last entry again
		d.fail = nil
		if !out {
			t.Fatal("no new segment was started: nothing tested")
		}
		q := openMem(t, d.crash(rand.New(rand.NewPCG(seed, 7))), Config{})
		if got := drain(t, q, 100); !slices.Equal(got, upTo(1, 5)) {
			t.Fatalf("seed %d: left %v", seed, got)
		}
	}
}

// On a full disk Append says so, the rest is readable, and then it goes on.
func TestDiskFull(t *testing.T) {
	d := newMemDisk()
	q := openMem(t, d, Config{})
	add(t, q, 50, 1000)
	for _, room := range []int64{0, 1, headerLen, 1000} {
		d.full = d.size() + room
		if _, err := q.Append(func(seq uint64) ([]byte, error) { return payloadOf(seq, 1000), nil }); !errors.Is(err, errFull) {
			t.Fatal(err)
		}
	}
	equal(t, "full", drain(t, q, 1000), upTo(1, 50))
	d.full = 0
	add(t, q, 1, 1000)
	equal(t, "then", drain(t, q, 1000), upTo(51, 51))
}

// On a file system smaller than the queue may be, the oldest go, and are told,
// also when there is no room to write that down.
func TestFullFileSystem(t *testing.T) {
	d := newMemDisk()
	q := openMem(t, d, Config{MaxBytes: 1 << 20})
	d.full = 600_000
	for range 2000 {
		add(t, q, 1, 1000)
		if n := q.Stats().Bytes; n != d.size() || n < minKept && q.next > 300 {
			t.Fatalf("%d bytes, the disk has %d", n, d.size())
		}
	}
	st := q.Stats()
	got := drain(t, q, 1000)
	if len(got) < 400 {
		t.Fatalf("left: %v", got)
	}
	equal(t, "left", got, upTo(got[0], 2000))
	if want := []Gap{{1, got[0] - 1, Full}}; !slices.Equal(st.Gaps, want) || st.Dropped != got[0]-1 || st.Err != nil {
		t.Errorf("stats %+v, want gaps %v", st, want)
	}
	q = openMem(t, d, Config{MaxBytes: 1 << 20}) // killed
	equal(t, "opened again", drain(t, q, 1000), got)
	if again := q.Stats(); !slices.Equal(again.Gaps, st.Gaps) {
		t.Errorf("stats %+v, want gaps %v", again, st.Gaps)
	}
}

// A kill at any moment of making room on a full disk leaves no loss untold.
func TestFullFileSystemKilled(t *testing.T) {
	told := 0
	for _, sync := range []Sync{SyncAlways, SyncEverySecond} {
		for _, broken := range []bool{false, true} { // the last segment
			for stop := range 30 {
				d := newMemDisk()
				q := openMem(t, d, Config{MaxBytes: 1 << 20, Sync: sync})
				add(t, q, 400, 1000)
				q.flushNow()
				q.suspect = broken
				d.full = d.size()
				n := 0
				d.fail = func(op string) error {
					if n++; n > stop {
						return errPower
					}
					return nil
				}
				q.Append(func(seq uint64) ([]byte, error) { return payloadOf(seq, 1000), nil })
				d.fail, d.full = nil, 0
				q = openMem(t, d, Config{MaxBytes: 1 << 20})
				got := drain(t, q, 1000)
				st := q.Stats()
				lost := st.Next - 1 - uint64(len(got))
				if st.Next < 401 || st.Dropped+st.Corrupt != lost {
					t.Fatalf("stopped after %d operations: %d came, stats %+v", stop, len(got), st)
				}
				told += int(lost)
			}
		}
	}
	if told == 0 {
		t.Error("nothing was dropped: nothing tested")
	}
}

func (q *Queue) flushNow() {
	q.write.Lock()
	defer q.write.Unlock()
	q.flush()
}

// Another program that takes all room there is does not get that of all entries.
func TestFullByAnother(t *testing.T) {
	d := newMemDisk()
	now := time.Unix(1e9, 0)
	q, err := open(d, "mem", Config{MaxBytes: 1 << 20}, timing{now: func() time.Time { return now }, interval: time.Hour, retry: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	add(t, q, 800, 1000)
	before := len(q.segments)
	start := now
	refused := 0
	for ; now.Sub(start) < 10*time.Minute; now = now.Add(time.Second) {
		d.full = d.size() // it has taken what was free
		if _, err := q.Append(func(seq uint64) ([]byte, error) { return payloadOf(seq, 1000), nil }); errors.Is(err, syscall.ENOSPC) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := before - len(q.segments); n < 2 || n > 6 || refused < 500 {
		t.Errorf("%d of %d segments were given in ten minutes, %d refused", n, before, refused)
	}
	for ; now.Sub(start) < 100*time.Hour; now = now.Add(5 * time.Minute) {
		d.full = d.size()
		q.Append(func(seq uint64) ([]byte, error) { return payloadOf(seq, 1000), nil })
	}
	st := q.Stats()
	if st.Bytes < minKept {
		t.Errorf("%d bytes left", st.Bytes)
	}
	d.full = 0
	add(t, q, 1, 1000)
	if got := drain(t, q, 1000); uint64(len(got)) != q.next-1-st.Dropped {
		t.Errorf("%d left, %d dropped of %d", len(got), st.Dropped, q.next-1)
	}
}

// The names of all directories that were made are durable, and of those that
// another may have made a moment ago.
func TestMakeDirectory(t *testing.T) {
	base := t.TempDir()
	path := filepath.Join(base, "a", "b", "queue")
	var synced []string
	broken := ""
	sync := func(dir string) error {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s is synced before %v", dir, err)
		}
		synced = append(synced, dir)
		if dir == broken {
			return syscall.EIO
		}
		return nil
	}
	broken = filepath.Dir(base) // not ours
	d, err := openDirectory(path, sync)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	for _, dir := range []string{filepath.Join(base, "a", "b"), filepath.Join(base, "a"), base, filepath.Dir(base)} {
		if !slices.Contains(synced, dir) {
			t.Errorf("%s is not synced, only %v", dir, synced)
		}
	}
	os.RemoveAll(filepath.Join(base, "a"))
	broken = base
	if _, err := openDirectory(path, sync); !errors.Is(err, syscall.EIO) {
		t.Errorf("the name of a is not durable: %v", err)
	}
}

// A queue takes at most half of its file system.
func TestSmallFileSystem(t *testing.T) {
	d := newMemDisk()
	d.total = 1 << 20
	for _, c := range []struct{ want, get int64 }{{0, 512 << 10}, {300_000, 300_000}, {1 << 30, 512 << 10}} {
		if n := openMem(t, d, Config{MaxBytes: c.want}).Stats().MaxBytes; n != c.get {
			t.Errorf("%d bytes wanted, got %d", c.want, n)
		}
	}
}

// Stats.Err goes when the queue could be written again, and not before, with
// nothing to write too.
func TestErrGoes(t *testing.T) {
	for _, op := range []string{"write", "sync", "full"} {
		t.Run(op, func(t *testing.T) {
			d := newMemDisk()
			now := time.Unix(1e9, 0)
			q, err := open(d, "mem", Config{}, timing{now: func() time.Time { return now }, interval: time.Minute, retry: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			add(t, q, 2, 1000)
			drain(t, q, 1000)
			if op == "full" {
				d.full = d.size() + 500 // enough for what an acknowledgement takes
			}
			tries := 0
			d.fail = func(what string) error {
				if what == op {
					tries++
					return errFault
				}
				return nil
			}
			if _, err := q.Append(func(seq uint64) ([]byte, error) { return payloadOf(seq, 1000), nil }); err == nil || q.Stats().Err == nil {
				t.Fatalf("append: %v; stats say %v", err, q.Stats().Err)
			}
			q.Ack(1)
			for range 20 {
				now = now.Add(time.Minute)
				if q.tick(); q.Stats().Err == nil {
					t.Fatal("stats say that it works")
				}
			}
			if !q.armed || tries > 10 {
				t.Errorf("%d tries in 20 ticks, timer armed: %v", tries, q.armed)
			}
			d.fail, d.full = nil, 0
			for range probeEvery + 1 {
				now = now.Add(time.Minute)
				q.tick()
			}
			if err := q.Stats().Err; err != nil {
				t.Errorf("stats say %v", err)
			}
			if q.armed && !q.dirty {
				t.Error("a timer runs for nothing")
			}
			add(t, q, 1, 1000)
			equal(t, "then", drain(t, q, 1000), upTo(3, 3))
		})
	}
}

func TestReturn(t *testing.T) {
	d := newMemDisk()
	q := openMem(t, d, Config{MaxBytes: minMaxBytes})
	add(t, q, 60, 1000) // several segments
	take := func(want ...uint64) {
		t.Helper()
		for _, seq := range want {
			if e, err := q.Next(done); err != nil || e.Seq != seq || !bytes.Equal(e.Payload, payloadOf(seq, 1000)) {
				t.Fatalf("entry %d, %v, want %d", e.Seq, err, seq)
			}
		}
	}
	inFlight := func(want uint64) {
		t.Helper()
		if n := q.Stats().InFlight; n != want {
			t.Fatalf("%d in flight, want %d", n, want)
		}
	}
	take(upTo(1, 50)...)
	q.Return(50)
	take(50)
	q.Ack(20)
	for _, seq := range []uint64{40, 3, 20, 3, 51, 99, 0} {
		q.Return(seq)
	}
	inFlight(47)
	take(3)
	inFlight(48)
	q.Return(45) // beyond what Next is at
	q.Ack(41)
	inFlight(46)
	take(40, 45, 51)
	inFlight(49)
	for seq := range uint64(51) {
		if seq != 7 {
			q.Return(seq + 1)
			q.Ack(seq) // of what was returned, counts all the same
		}
	}
	q.Close()
	q = openMem(t, d, Config{MaxBytes: minMaxBytes})
	take(7, 51, 52)
}

// One appends, one reads, and the acknowledgements come from a third.
func TestConcurrent(t *testing.T) {
	const n = 3000
	q := openTest(t, t.TempDir(), Config{Sync: SyncEverySecond, MaxBytes: 1 << 20})
	q.timing.interval = 5 * time.Millisecond
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	acks := make(chan uint64, 100)
	wg.Go(func() {
		for seq := range acks {
			q.Ack(seq)
			q.Stats()
		}
	})
	wg.Go(func() {
		for range n {
			if _, err := q.Append(func(seq uint64) ([]byte, error) { return payloadOf(seq, 200), nil }); err != nil {
				t.Error(err)
			}
		}
	})
	for want := uint64(1); want <= n; want++ {
		e, err := q.Next(t.Context())
		if err != nil || e.Seq != want {
			t.Fatalf("entry %d, %v, want %d", e.Seq, err, want)
		}
		acks <- e.Seq
	}
	close(acks)
	wg.Wait()
	if st := q.Stats(); st.Pending != 0 || st.Acked != n || st.Dropped != 0 {
		t.Errorf("stats %+v", st)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// Ack is called by the MQTT client's reader: it must not wait for the disk.
func TestAckDoesNotWait(t *testing.T) {
	d := newMemDisk()
	q := openMem(t, d, Config{})
	add(t, q, 2, 0)
	drain(t, q, 0)
	syncing, acked := make(chan bool), make(chan bool)
	d.fail = func(op string) error {
		if op == "sync" {
			syncing <- true
			<-acked
		}
		return nil
	}
	go q.Append(func(uint64) ([]byte, error) { return nil, nil })
	<-syncing
	q.Ack(1)
	if st := q.Stats(); st.Pending != 2 {
		t.Errorf("stats %+v", st)
	}
	acked <- true
	q.write.Lock() // the append is over
	d.mu.Lock()
	d.fail = nil
	d.mu.Unlock()
	q.write.Unlock()
}

func TestSpans(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var s spans
		model := make([]bool, 60)
		for range 12 {
			first := 1 + r.Uint64N(50)
			n := span{first, first + r.Uint64N(6)}
			missing := uint64(0)
			for _, m := range s.missing(n) {
				missing += m.len()
			}
			for i := n.first; i <= n.last; i++ {
				if !model[i] {
					missing--
				}
				model[i] = true
			}
			if missing != 0 {
				t.Fatalf("missing of %v in %v", n, s)
			}
			s.add(n)
		}
		count := uint64(0)
		for i, want := range model {
			if s.contains(uint64(i)) != want || s.below(uint64(i)) != count {
				t.Fatalf("%d in %v", i, s)
			}
			if want {
				count++
			}
		}
		for i := 1; i < len(s); i++ {
			if s[i].first <= s[i-1].last+1 {
				t.Fatalf("%v", s)
			}
		}
	}
}

// The list of gaps is bounded; the count goes on.
func TestManyGaps(t *testing.T) {
	s := state{cursor: 1}
	for i := range uint64(100) {
		s.lose(span{10*i + 5, 10*i + 6}, Reason(i%2))
	}
	s.lose(span{50, 57}, Corrupt) // in part known
	var c content
	b := s.append(nil, true, true)
	src := source{r: bytes.NewReader(b), limit: int64(len(b))}
	c, torn, err := src.scan(1)
	if err != nil || torn {
		t.Fatal(err, torn)
	}
	var got state
	got.restore(&c)
	if len(s.gaps) != maxGaps || s.dropped != 100 || s.corrupt != 106 {
		t.Errorf("%d gaps, dropped %d, corrupt %d", len(s.gaps), s.dropped, s.corrupt)
	}
	if fmt.Sprint(got) != fmt.Sprint(s) {
		t.Errorf("restored\n%v, want\n%v", got, s)
	}
}

func TestFlags(t *testing.T) {
	var c Config
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.AddFlags(fs)
	if err := fs.Parse([]string{"--sync", "1s", "--queue-max-bytes=300000"}); err != nil {
		t.Fatal(err)
	}
	if c.Sync != SyncEverySecond || c.MaxBytes != 300000 || c.Validate() != nil {
		t.Errorf("%+v", c)
	}
	if err := fs.Parse([]string{"--sync", "never"}); err == nil || !strings.Contains(err.Error(), "want always or 1s") {
		t.Error(err)
	}
}
