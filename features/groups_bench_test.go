package features

import (
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/internal/datatest"
)

// columnsByGroup returns the columns of each group of connections, of the largest
// model and of all, and these names in order.
func columnsByGroup() (columns map[string][]string, order []string) {
	columns = map[string][]string{"kdd+telecom": benchColumns, "all": names(featuresOf(ConnectionRow))}
	order = []string{"none"}
	for _, f := range featuresOf(ConnectionRow) {
		if columns[f.Group] == nil {
			order = append(order, f.Group)
		}
		columns[f.Group] = append(columns[f.Group], f.Name)
	}
	return columns, append(order, "kdd+telecom", "all")
}

// BenchmarkGroups measures tracking of the lab's packets with the columns of no
// group, of each alone, of the largest model and of all. Its best pass says what
// the code costs where a machine is shared; the decoder is left out.
func BenchmarkGroups(b *testing.B) {
	var ps []capture.Packet
	var d capture.Decoder
	for _, f := range readFrames(b, datatest.Data(b, "captures", "lab", "A-lan.pcap")) {
		var p capture.Packet
		if d.Decode(&f, &p).HasPacket() {
			ps = append(ps, p)
		}
	}
	columns, order := columnsByGroup()
	for _, g := range order {
		b.Run(g, func(b *testing.B) {
			tr := newTracker(b, Config{Columns: columns[g]}, func(*Row) {})
			span, best := ps[len(ps)-1].Time-ps[0].Time+second, time.Duration(math.MaxInt64)
			offset := int64(0)
			var p capture.Packet
			pass := func() {
				for i := range ps {
					p = ps[i]
					p.Time += offset
					tr.Add(&p)
				}
				offset += span
			}
			pass()
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				pass()
				best = min(best, time.Since(start))
			}
			b.ReportMetric(float64(best.Nanoseconds())/float64(len(ps)), "best-ns/packet")
		})
	}
}

// BenchmarkGroupsMemory fills a tracker by a flood of a million SYNs, each of its
// own source, and reports the heap: what a live connection takes,
// and what the group takes besides.
func BenchmarkGroupsMemory(b *testing.B) {
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	flood := func(b *testing.B, columns []string, n, packets int) float64 {
		before := heap()
		tr := newTracker(b, Config{Columns: columns}, func(*Row) {})
		p := packet(0, capture.ProtoTCP, false, 0)
		for i := range n {
			p.Src[13], p.Src[14], p.Src[15] = byte(i>>16), byte(i>>8), byte(i)
			for k := range packets {
				p.Flags = capture.SYN
				if k > 0 {
					p.Flags = capture.ACK
				}
				p.Time += 5000
				tr.Add(&p)
			}
		}
		used := heap() - before
		runtime.KeepAlive(tr)
		return used
	}
	columns, order := columnsByGroup()
	for _, g := range order {
		b.Run(g, func(b *testing.B) {
			for b.Loop() {
				one, full := flood(b, columns[g], 1, 1), flood(b, columns[g], DefaultMaxConnections, 1)
				b.ReportMetric((full-one)/DefaultMaxConnections, "B/connection")
				b.ReportMetric(flood(b, columns[g], 1_000_000, 1)/(1<<20), "flood-MiB")
				b.ReportMetric(flood(b, columns[g], 200_000, 12)/(1<<20), "flood12-MiB") // of 12 packets each
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}
