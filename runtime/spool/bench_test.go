package spool

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"
)

// BenchmarkAppend appends events of 1,000 bytes that are read and acknowledged
// meanwhile. writtenB/op is what is written to the files, deviceB/op what the
// kernel writes for that: whole pages, without the journal.
func BenchmarkAppend(b *testing.B) {
	payload := make([]byte, 1000)
	for _, sync := range []Sync{SyncAlways, SyncEverySecond} {
		b.Run("sync="+sync.String(), func(b *testing.B) {
			q := openTest(b, b.TempDir(), Config{Sync: sync, MaxBytes: 1 << 30})
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan bool)
			go func() {
				defer close(ended)
				for {
					e, err := q.Next(ctx)
					if err != nil {
						return
					}
					q.Ack(e.Seq)
				}
			}()
			encode := func(uint64) ([]byte, error) { return payload, nil }
			before := deviceBytes()
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := q.Append(encode); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			cancel()
			<-ended
			q.Close()
			st := q.Stats()
			b.ReportMetric(float64(st.Written)/float64(st.Appended), "writtenB/op")
			b.ReportMetric(float64(st.Syncs)/float64(st.Appended), "syncs/op")
			if after := deviceBytes(); after > before {
				b.ReportMetric(float64(after-before)/float64(st.Appended), "deviceB/op")
			}
		})
	}
}

// deviceBytes is what this process has caused to be written, 0 where that is unknown.
func deviceBytes() (n uint64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	var name string
	for rest := string(text); rest != ""; {
		var v uint64
		if _, err := fmt.Sscan(rest, &name, &v); err != nil {
			return 0
		}
		if name == "write_bytes:" {
			return v
		}
		for rest != "" && rest[0] != '\n' {
			rest = rest[1:]
		}
		rest = rest[min(1, len(rest)):]
	}
	return 0
}

// BenchmarkOpen opens a queue of 64 MiB that a process was killed with and reads
// its first entry; drain/s is then the rate of reading the others.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	q := openTest(b, dir, Config{Sync: SyncEverySecond, MaxBytes: 1 << 30})
	for q.Stats().Bytes < 64<<20 {
		add(b, q, 1000, 1000)
	}
	q.disk.Close() // the lock, not the queue
	b.ReportAllocs()
	for b.Loop() {
		q, err := Open(dir, Config{Sync: SyncEverySecond, MaxBytes: 1 << 30})
		if err != nil {
			b.Fatal(err)
		}
		if e, err := q.Next(b.Context()); err != nil || e.Seq != 1 {
			b.Fatal(e.Seq, err)
		}
		q.Close()
	}
	q = openTest(b, dir, Config{MaxBytes: 1 << 30})
	began, n := time.Now(), 0
	for {
		e, err := q.Next(done)
		if err != nil {
			break
		}
		q.Ack(e.Seq)
		n++
	}
	b.ReportMetric(float64(n)/time.Since(began).Seconds(), "drain/s")
	if n < 60_000 {
		b.Fatalf("%d entries", n)
	}
}
