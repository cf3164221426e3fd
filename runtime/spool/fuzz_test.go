package spool

import (
	"context"
	"errors"
	"runtime"
	"testing"
)

// FuzzOpen opens a queue of two arbitrary segments: whatever they hold, it can be
// read to the end and appended to, in memory that their size bounds.
func FuzzOpen(f *testing.F) {
	d := newMemDisk()
	q := openMem(f, d, Config{MaxBytes: minMaxBytes})
	add(f, q, 30, 1000)
	for range 10 {
		q.Next(done)
	}
	q.Ack(1)
	q.Ack(5)
	q.Close()
	a, b := d.names[q.segments[0].name()].data, d.names[q.segments[1].name()].data
	f.Add(a, b, uint64(1), q.segments[1].base)
	f.Add(a[:len(a)/2], b[:len(b)-1], uint64(1), q.segments[1].base)
	f.Add(b, a, uint64(1), uint64(2))
	f.Add([]byte{}, []byte{}, uint64(7), uint64(maxSeq))
	f.Add(make([]byte, 100), []byte("garbage"), uint64(3), uint64(1<<40))
	f.Fuzz(func(t *testing.T, a, b []byte, baseA, baseB uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d := newMemDisk()
		for base, data := range map[uint64][]byte{baseA: a, baseB: b} {
			if parseName(segmentName(base)) != 0 {
				d.names[segmentName(base)] = &inode{data: data}
			}
		}
		q := openMem(t, d, Config{MaxBytes: minMaxBytes})
		last := uint64(0)
		for {
			e, err := q.Next(done)
			if errors.Is(err, context.Canceled) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if e.Seq <= last {
				t.Fatalf("entry %d after %d", e.Seq, last)
			}
			last = e.Seq
			q.Ack(e.Seq)
		}
		if st := q.Stats(); st.Pending != 0 || st.InFlight != 0 || st.Oldest != st.Next {
			t.Fatalf("read to the end: %+v", st)
		}
		if q.next >= maxSeq {
			return
		}
		seq, err := q.Append(func(uint64) ([]byte, error) { return []byte("new"), nil })
		if err != nil || seq <= last {
			t.Fatalf("append after %d: %d, %v", last, seq, err)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		q = openMem(t, d, Config{MaxBytes: minMaxBytes})
		if e, err := q.Next(done); err != nil || e.Seq != seq || string(e.Payload) != "new" {
			t.Fatalf("entry %d %q, %v", e.Seq, e.Payload, err)
		}
		q.Close()
		runtime.ReadMemStats(&after)
		if used, most := after.TotalAlloc-before.TotalAlloc, uint64(20*(len(a)+len(b))+4<<20); used > most {
			t.Errorf("%d bytes allocated for segments of %d and %d", used, len(a), len(b))
		}
	})
}
