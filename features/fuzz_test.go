package features

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/picket-ids/picket/capture"
)

// FuzzTracker takes frames, each behind two octets of its length and two of the
// milliseconds since the one before (the last fifth of them: seconds back), from
// an adversary to rows.
func FuzzTracker(f *testing.F) {
	rng := newRand(11)
	for range 12 {
		var in []byte
		for range 3 {
			for _, b := range conversation(rng) {
				in = binary.BigEndian.AppendUint16(in, uint16(len(b)))
				in = binary.BigEndian.AppendUint16(in, uint16(rng.IntN(1<<16)))
				in = append(in, b...)
			}
		}
		f.Add(in[:min(len(in), 4000)])
	}
	columns := slices.Clone(kdd28)
	for _, c := range allColumns() {
		if !slices.Contains(columns, c) {
			columns = append(columns, c)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 4
		open, ended := 0, uint64(0)
		var r kddRow
		var last int64 = math.MinInt64
		steps := uint64(0)
		var tr *Tracker
		tr = newTracker(t, Config{Columns: columns, MaxConnections: limit}, func(row *Row) {
			for i, v := range row.Values {
				signed := strings.HasPrefix(columns[i], "size_") // negative from the responder
				if v != v || math.IsInf(float64(v), 0) || v < 0 && !signed {
					t.Fatalf("%s is %v", columns[i], v)
				}
			}
			r.set(row.Values[:len(r)])
			for _, in := range invariants {
				if in.foreign == "" && !in.ok(&r) {
					t.Fatalf("%s: %v", in.name, r)
				}
			}
			if row.Ended {
				ended++
			}
			if n := tr.Stats().ClockSteps; n != steps {
				steps, last = n, math.MinInt64
			}
			if row.End > row.Time || row.Start > row.End || row.Time < last {
				t.Fatalf("row before at %d, %+v", last, row)
			}
			last = row.Time
		})
		var d capture.Decoder
		var p capture.Packet
		fr := capture.Frame{Link: capture.LinkEthernet, Time: epoch}
		for len(in) > 4 {
			n, pause := int(binary.BigEndian.Uint16(in)), int64(binary.BigEndian.Uint16(in[2:]))
			fr.Data = in[4:min(len(in), 4+n)]
			fr.WireLen = max(n, len(fr.Data))
			if fr.Time += pause * second / 1000; pause > 52_000 {
				fr.Time -= pause*second/1000 + (pause-52_000)*second/100
			}
			in = in[4+len(fr.Data):]
			if d.Decode(&fr, &p).HasPacket() {
				tr.Add(&p)
			}
			open = max(open, tr.Open())
		}
		tr.Flush()
		if open > limit || len(tr.conns.chunks) > 1 || tr.Open() != 0 || ended != tr.Stats().Connections {
			t.Fatalf("%d open at a time, %d chunks, %d ended, %d open, %+v", open, len(tr.conns.chunks), ended, tr.Open(), tr.Stats())
		}
	})
}
