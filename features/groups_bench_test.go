package features

import (
	"math"
	"testing"
	"time"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/internal/datatest"
)

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
	order := []string{"none"}
	columns := map[string][]string{"kdd+telecom": benchColumns, "all": names(featuresOf(ConnectionRow))}
	for _, f := range featuresOf(ConnectionRow) {
		if columns[f.Group] == nil {
			order = append(order, f.Group)
		}
		columns[f.Group] = append(columns[f.Group], f.Name)
	}
	for _, g := range append(order, "kdd+telecom", "all") {
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
