package features

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picket-ids/picket/capture"
)

// notebookColumns are those of the IoT data set that a model may have.
var notebookColumns = []string{
	"packet_size", "inter_arrival_time", "src_port", "dst_port", "packet_count_5s", "mean_packet_size",
	"spectral_entropy", "frequency_band_energy", "protocol_type=tcp", "protocol_type=udp",
	"tcp_flags=FIN", "tcp_flags=SYN", "tcp_flags=SYN-ACK",
}

// packetColumns names every column that a packet's row can have.
func packetColumns() (all []string) {
	for i := range packetGroup {
		all = append(all, packetGroup[i].Columns()...)
	}
	return all
}

func newPacketTracker(t testing.TB, cfg Config, emit func(*Row)) *PacketTracker {
	t.Helper()
	tr, err := NewExtractor(PacketRow, cfg, emit)
	if err != nil {
		t.Fatal(err)
	}
	return tr.(*PacketTracker)
}

// packetRows returns the values of the rows of ps.
func packetRows(t testing.TB, cfg Config, ps ...capture.Packet) (all [][]float32) {
	t.Helper()
	tr := newPacketTracker(t, cfg, func(r *Row) { all = append(all, slices.Clone(r.Values)) })
	for i := range ps {
		tr.Add(&ps[i])
	}
	return all
}

func TestPacketRow(t *testing.T) {
	p := packet(1.5, capture.ProtoTCP, true, 6)
	p.Flags, p.Window = capture.SYN|capture.ACK, 1024
	p.Tunnel, p.TunnelID, p.OuterSrc, p.OuterDst = capture.TunnelGTPU, 7, client, server
	var got Row
	tr := newPacketTracker(t, Config{Columns: []string{"packet_size"}}, func(r *Row) {
		got = *r
		got.Values = slices.Clone(r.Values)
	})
	tr.Add(&p)
	want := Row{
		Kind: PacketRow, Time: p.Time, Start: p.Time, End: p.Time, Src: server, Dst: client, SrcPort: 80, DstPort: 4000,
		Proto: capture.ProtoTCP, Packets: [2]uint64{1, 0}, Octets: [2]uint64{60, 0}, Ended: true,
		Tunnel: capture.TunnelGTPU, TunnelID: 7, OuterSrc: client, OuterDst: server, Values: []float32{60},
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if s := tr.Stats(); s != (Stats{Rows: 1}) || tr.Open() != 1 {
		t.Errorf("%+v", s)
	}
}

func TestPacketFeatures(t *testing.T) {
	sized := func(seconds float64, fromServer bool, octets int) capture.Packet {
		p := packet(seconds, capture.ProtoUDP, fromServer, 0)
		p.WireLen = octets
		return p
	}
	columns := []string{"packet_size", "inter_arrival_time", "packet_count_5s", "mean_packet_size", "spectral_entropy", "frequency_band_energy"}
	got := packetRows(t, Config{Columns: columns},
		sized(0, false, 100),
		sized(1, true, 1500), // another source
		sized(2, false, 200),
		sized(5, false, 600),     // exactly 5 s after the first
		sized(5, true, 1500),     // a constant series
		sized(5.5, false, 100),   // the first is out
		sized(4, false, 0),       // late: as if at 5.5
		sized(100, false, 70000), // jumbo, and all before out of the count
		sized(-3000, false, 40),  // the clock starts anew
		sized(-2999, false, -1),  // what cannot be
	)
	want := [][]float64{
		{100, 0, 1, 100, 0, 0},
		{1500, 0, 1, 1500, 0, 0},
		{200, 2, 2, 150, 0, 1},
		{600, 3, 3, 300, -1, 1},
		{1500, 4, 2, 1500, 0, 0},
		{100, .5, 3, 250, -1, 1},
		{0, 0, 4, 200, -1, -1},
		{70000, 94.5, 1, 11833 + 1./3, -1, -1},
		{40, 0, 1, 40, 0, 0},
		{0, 1, 2, 20, 0, 1},
	}
	if len(got) != len(want) {
		t.Fatalf("%d rows", len(got))
	}
	var tr transform
	for i, w := range want {
		for c, v := range w {
			if v < 0 { // neither 0 nor 1: TestPacketGolden has the values
				if got[i][c] <= 0 || got[i][c] >= 1 {
					t.Errorf("row %d: %s is %v", i, columns[c], got[i][c])
				}
			} else if got[i][c] != float32(v) {
				t.Errorf("row %d: %s is %v, want %v", i, columns[c], got[i][c], v)
			}
		}
	}
	b := transformOf(&tr, []float64{100, 200, 600, 100, 0, 70000})
	if e, f := got[7][4], got[7][5]; e != float32(b.entropy()) || f != float32(b.fine()) {
		t.Errorf("entropy %v, share %v: want %v and %v", e, f, b.entropy(), b.fine())
	}
}

func TestPacketCategories(t *testing.T) {
	const tcp, udp, sctp = capture.ProtoTCP, capture.ProtoUDP, capture.ProtoSCTP
	const fin, syn, rst, psh, ack, urg = capture.FIN, capture.SYN, capture.RST, capture.PSH, capture.ACK, capture.URG
	for _, tc := range []struct {
		proto, flags     uint8
		srcPort, dstPort uint16
		protocol, kind   string
	}{
		{tcp, syn, 4000, 80, "tcp", "SYN"},
		{tcp, syn | capture.ECE | capture.CWR, 4000, 80, "tcp", "SYN"},
		{tcp, syn | ack, 80, 4000, "tcp", "SYN-ACK"},
		{tcp, syn | ack | rst, 80, 4000, "tcp", "RST"},
		{tcp, syn | fin, 4000, 80, "tcp", "SYN"},
		{tcp, ack, 4000, 80, "tcp", "ACK"},
		{tcp, ack | psh | urg, 4000, 80, "tcp", "ACK"},
		{tcp, fin | ack, 4000, 80, "tcp", "FIN"},
		{tcp, fin | psh | urg, 4000, 80, "tcp", "FIN"}, // an Xmas scan
		{tcp, rst | ack, 4000, 80, "tcp", "RST"},
		{tcp, rst, 4000, 80, "tcp", "RST"},
		{tcp, 0, 4000, 80, "tcp", "none"}, // a NULL scan
		{tcp, psh, 4000, 80, "tcp", "none"},
		{tcp, ack, 5060, 4000, "sip", "ACK"},
		{tcp, ack, 4000, 3868, "diameter", "ACK"},
		{udp, 0, 2152, 2152, "gtp", "none"},
		{udp, 0, 2123, 40000, "gtp", "none"},
		{udp, syn, 40000, 53, "udp", "none"},
		{udp, 0, 5060, 2152, "gtp", "none"}, // the destination's first
		{sctp, 0, 4000, 3868, "diameter", "none"},
		{sctp, 0, 2152, 2152, "other", "none"},
		{capture.ProtoICMP, 0, 0, 0, "icmp", "none"},
		{capture.ProtoICMPv6, 0, 0, 0, "icmp", "none"},
		{47, 0, 0, 0, "other", "none"},
		{47, 0, 5060, 5060, "other", "none"},
	} {
		p := packet(0, tc.proto, false, 0)
		p.SrcPort, p.DstPort, p.Flags = tc.srcPort, tc.dstPort, tc.flags
		v := packetRows(t, Config{Columns: []string{"protocol_type", "tcp_flags", "src_port", "dst_port", "protocol_type=" + tc.protocol, "tcp_flags=" + tc.kind}}, p)[0]
		if protocol, kind := ValueName("protocol_type", float64(v[0])), ValueName("tcp_flags", float64(v[1])); protocol != tc.protocol || kind != tc.kind {
			t.Errorf("%+v: %s %s", tc, protocol, kind)
		}
		if !slices.Equal(v[2:], []float32{float32(tc.srcPort), float32(tc.dstPort), 1, 1}) {
			t.Errorf("%+v: %v", tc, v)
		}
	}
}

func TestPacketOneHot(t *testing.T) {
	columns := packetColumns()
	rows := packetRows(t, Config{Columns: columns}, randomPackets(newRand(31), 2000)...)
	for _, r := range rows {
		for _, f := range packetGroup {
			for v, name := range f.OneHot {
				own := r[slices.Index(columns, f.Name)]
				if got, want := r[slices.Index(columns, f.Name+"="+name)], float32(oneIf(v == int(own))); got != want {
					t.Fatalf("%s is %v, %s=%s is %v", f.Name, own, f.Name, name, got)
				}
			}
		}
	}
}

func TestPacketConfig(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{Columns: []string{"packet_size", "duration"}}, `column 2: "duration"`},
		{Config{Columns: []string{"tcp_flags=URG"}}, `column 1: "tcp_flags=URG"`},
		{Config{MaxSources: -1}, "-1 sources"},
		{Config{MaxSources: 1<<24 + 1}, "16777217 sources"},
	} {
		if _, err := NewExtractor(PacketRow, tc.cfg, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc.cfg, err)
		}
	}
	if err := Check(PacketRow, notebookColumns); err != nil {
		t.Error(err)
	}
}

// TestPacketCount: exact to 64 packets in 5 s, and then to a step.
func TestPacketCount(t *testing.T) {
	for _, tc := range []struct {
		name     string
		gap      float64 // s between packets
		n        int
		min, max float32 // of the last
	}{
		{"slow", 10, 100, 1, 1},
		{"1 a second", 1, 100, 6, 6}, // 5 s ago counts
		{"64 in 5 s", 5. / 63, 300, 64, 64},
		{"65 in 5 s", 5. / 64, 300, 65, 66},
		{"a burst at once", 0, 10000, 10000, 10000},
		{"1000 a second", .001, 20000, 5001, 5079},
	} {
		for _, before := range []int64{0, epoch + 1_000_000*second} { // and before 1970
			var ps []capture.Packet
			for i := range tc.n {
				p := packet(float64(i)*tc.gap, capture.ProtoUDP, false, 0)
				p.Time -= before
				ps = append(ps, p)
			}
			rows := packetRows(t, Config{Columns: []string{"packet_count_5s"}}, ps...)
			if v := rows[len(rows)-1][0]; v < tc.min || v > tc.max {
				t.Errorf("%s: %v", tc.name, v)
			}
		}
	}
}

// TestPacketClock: any clock goes.
func TestPacketClock(t *testing.T) {
	const most = 1 << 62
	var ps []capture.Packet
	for _, at := range []int64{-second, 0, math.MinInt64, math.MaxInt64, math.MaxInt64, math.MinInt64} {
		p := packet(0, capture.ProtoUDP, false, 0)
		p.Time = at
		ps = append(ps, p)
	}
	got := packetRows(t, Config{Columns: []string{"inter_arrival_time", "packet_count_5s"}}, ps...)
	want := [][]float32{{0, 1}, {0, 2}, {0, 1}, {2 * most / 1e9, 1}, {0, 2}, {0, 1}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	live := ps[:3:3]
	live[0].Time, live[1].Time, live[2].Time = 10*second, 9*second, 7*second
	got = packetRows(t, Config{Columns: []string{"packet_count_5s"}, StepBack: time.Second}, live...)
	if want := [][]float32{{1}, {2}, {1}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a step of a second, then of two: %v, want %v", got, want)
	}
}

// slowSource is the obvious way to have what a PacketTracker computes.
type slowSource struct {
	addr  capture.Addr
	times []int64
	sizes []float64
}

type slowPackets struct {
	limit   int
	sources []*slowSource // the one silent longest first
	now     int64
	stats   Stats
}

// add returns packet_size, inter_arrival_time, packet_count_5s (the exact one and the
// one in steps), mean_packet_size, and the energies of the sizes.
func (s *slowPackets) add(p *capture.Packet) (size, gap, exact, steps, mean float64, b bands) {
	if p.Time < s.now-60e9 {
		s.sources, s.now = nil, p.Time
		s.stats.ClockSteps++
	}
	s.now = max(s.now, p.Time)
	k := slices.IndexFunc(s.sources, func(f *slowSource) bool { return f.addr == p.Src })
	var f *slowSource
	if k >= 0 {
		f = s.sources[k]
		s.sources = slices.Delete(s.sources, k, k+1)
	} else {
		f = &slowSource{addr: p.Src}
		if len(s.sources) == s.limit {
			s.sources = s.sources[1:]
			s.stats.Forgotten++
		}
	}
	s.sources = append(s.sources, f)
	s.stats.Rows++
	if n := len(f.times); n > 0 {
		gap = float64(s.now-f.times[n-1]) / 1e9
	}
	size = float64(p.WireLen)
	f.times, f.sizes = append(f.times, s.now), append(f.sizes, size)
	for _, t := range f.times {
		if t >= s.now-5e9 {
			exact++
		}
		if t/78_125_000 >= s.now/78_125_000-64 {
			steps++
		}
	}
	series := f.sizes[max(0, len(f.sizes)-64):]
	for _, v := range series {
		mean += v
	}
	return size, gap, exact, steps, mean / float64(len(series)), slowBands(series)
}

// slowBands follows the definition of a periodised transform.
func slowBands(x []float64) (b bands) {
	low := [8]float64{h0, h1, h2, h3, h4, h5, h6, h7}
	for b.n < 5 && len(x) > 1 {
		if len(x)%2 == 1 {
			x = append(slices.Clone(x), x[len(x)-1])
		}
		half := make([]float64, len(x)/2)
		for o := range half {
			d := 0.0
			for i, h := range low {
				half[o] += h * x[(2*o+i-3+8*len(x))%len(x)]
				d += math.Pow(-1, float64(i)) * low[7-i] * x[(2*o+i-3+8*len(x))%len(x)]
			}
			b.energy[b.n] += d * d
		}
		x = half
		b.n++
	}
	return b
}

// streams makes packets of a few sources that send at very different rates.
func streams(rng *rand.Rand, n int) []capture.Packet {
	ps := randomPackets(rng, n)
	hosts := 1 + rng.IntN(12)
	now, sizes := epoch, 1+rng.IntN(1400)
	pace := int64(second)
	for i := range ps {
		if rng.IntN(200) == 0 {
			pace = []int64{0, 1000, second / 1000, second / 50, second / 13, second, 4 * second}[rng.IntN(7)]
			sizes = 1 + rng.IntN(1400)
		}
		now += rng.Int64N(pace + 1)
		p := &ps[i]
		switch p.Time = now; rng.IntN(1000) {
		case 0:
			p.Time -= 70 * second
			now = p.Time
		case 1, 2, 3, 4:
			p.Time -= rng.Int64N(50 * second)
		case 5:
			now += 10_000 * second
		}
		p.Src = capture.Addr{10: 0xff, 11: 0xff, 12: 10, 15: byte(rng.IntN(hosts))}
		p.WireLen = 60 + rng.IntN(sizes)
	}
	return ps
}

func TestPacketTracker(t *testing.T) {
	columns := []string{"packet_size", "inter_arrival_time", "packet_count_5s", "mean_packet_size", "spectral_entropy", "frequency_band_energy"}
	beyond := 0
	for seed := range uint64(60) {
		rng := newRand(seed)
		ps := streams(rng, 3000)
		limit := []int{1, 3, 100}[rng.IntN(3)]
		slow := slowPackets{limit: limit}
		for i, got := range packetRows(t, Config{Columns: columns, MaxSources: limit}, ps...) {
			size, gap, exact, steps, mean, b := slow.add(&ps[i])
			count := exact
			if exact > 64 {
				count = steps
				beyond++
			}
			for c, want := range []float64{size, gap, count, mean, 0, 0} {
				if c < 4 && got[c] != float32(want) {
					t.Fatalf("seed %d, packet %d: %s is %v, want %v", seed, i, columns[c], got[c], want)
				}
			}
			entropy, fine := b.entropy(), b.fine()
			if b.total() < 1e-9 {
				entropy, fine = 0, 0
			}
			if !near(float64(got[4]), entropy, 1e-6) || !near(float64(got[5]), fine, 1e-6) {
				t.Fatalf("seed %d, packet %d: entropy %v, share %v, want %v and %v", seed, i, got[4], got[5], entropy, fine)
			}
		}
		var tr *PacketTracker
		tr = newPacketTracker(t, Config{MaxSources: limit}, func(*Row) {
			if tr.Open() > limit {
				t.Fatalf("%d sources", tr.Open())
			}
		})
		for i := range ps {
			tr.Add(&ps[i])
		}
		if tr.Stats() != slow.stats || tr.Open() != len(slow.sources) {
			t.Errorf("seed %d: %+v and %d open, want %+v and %d", seed, tr.Stats(), tr.Open(), slow.stats, len(slow.sources))
		}
	}
	if beyond < 1000 {
		t.Errorf("only %d rows with more than 64 packets in 5 s", beyond)
	}
}

// TestPacketColumns: a column has the same value whatever stands beside it.
func TestPacketColumns(t *testing.T) {
	all := packetColumns()
	ps := streams(newRand(32), 2000)
	rows := packetRows(t, Config{Columns: all}, ps...)
	for c, name := range all {
		for i, r := range packetRows(t, Config{Columns: []string{name}}, ps...) {
			if r[0] != rows[i][c] {
				t.Fatalf("packet %d: %s is %v alone, %v among all", i, name, r[0], rows[i][c])
			}
		}
	}
}

// TestPacketGolden compares with what testdata/wavelet_golden.py reads from captures.
func TestPacketGolden(t *testing.T) {
	columns := []string{"packet_size", "inter_arrival_time", "packet_count_5s", "mean_packet_size", "spectral_entropy", "frequency_band_energy", "src_port", "dst_port", "tcp_flags"}
	for name, want := range readWaveletGolden(t).Rows {
		i := 0
		tr := newPacketTracker(t, Config{Columns: columns}, func(r *Row) {
			if i >= len(want) {
				return
			}
			w := want[i]
			i++
			if got := r.Src.String(); got != w[1] {
				t.Fatalf("%s, packet %d: from %s, want %v", name, i, got, w[1])
			}
			for c, v := range r.Values[:8] {
				x := w[c+2].(float64)
				tolerance := 1e-6 * max(1, x) // that of float32
				if c == 2 && x > 64 {
					tolerance = .1 * x // less than 78 ms more
				}
				if !near(float64(v), x, tolerance) {
					t.Errorf("%s, packet %d: %s is %v, want %v", name, i, columns[c], v, x)
				}
			}
			if got := ValueName("tcp_flags", float64(r.Values[8])); got != w[10] {
				t.Errorf("%s, packet %d: %s, want %v", name, i, got, w[10])
			}
		})
		var d capture.Decoder
		var p capture.Packet
		for _, f := range readFrames(t, "../testdata/"+name+".pcap.gz") {
			if binary.BigEndian.Uint16(f.Data[36:]) == portGTPU {
				continue // as the script does
			}
			if d.Decode(&f, &p).HasPacket() && p.Version == 4 {
				tr.Add(&p)
			}
		}
		if i != len(want) || i < 300 {
			t.Errorf("%s: %d rows, want %d", name, i, len(want))
		}
	}
}

func TestPacketNoAllocations(t *testing.T) {
	ps := streams(newRand(33), 5000)
	rows := 0
	tr := newPacketTracker(t, Config{Columns: packetColumns(), MaxSources: 5}, func(*Row) { rows++ })
	pass := func() {
		for i := range ps {
			tr.Add(&ps[i])
		}
	}
	pass()
	if n := testing.AllocsPerRun(5, pass); n != 0 {
		t.Errorf("%v allocations per %d packets", n, len(ps))
	}
	if rows < len(ps) {
		t.Errorf("only %d rows", rows)
	}
}

// TestPacketMemory fills a tracker past its cap.
func TestPacketMemory(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	tr := newPacketTracker(t, Config{Columns: packetColumns()}, func(*Row) {})
	for i := range 3 * DefaultMaxSources {
		p := packet(float64(i)*1e-5, capture.ProtoUDP, false, 0)
		p.Src[13], p.Src[14] = byte(i>>8), byte(i)
		tr.Add(&p)
	}
	used := heap() - before
	t.Logf("%d octets", used)
	if s := tr.Stats(); tr.Open() != DefaultMaxSources || s.Forgotten != 2*DefaultMaxSources {
		t.Errorf("%d sources, %+v", tr.Open(), s)
	}
	if used > 5e6 { // as the doc of DefaultMaxSources has it
		t.Errorf("%d octets when full", used)
	}
	runtime.KeepAlive(tr)
}

// FuzzPacketTracker takes of each 8 octets the source, protocol, flags and port of a
// packet, its size, and the milliseconds since the one before (the last fifth of them:
// seconds back).
func FuzzPacketTracker(f *testing.F) {
	rng := newRand(34)
	for range 10 {
		in := make([]byte, 8*(1+rng.IntN(100)))
		for i := range in {
			in[i] = byte(rng.Uint32())
			if i%8 == 0 {
				in[i] &= 3
			}
		}
		f.Add(in)
	}
	columns := packetColumns()
	at := func(name string) int { return slices.Index(columns, name) }
	size, gap, count, mean := at("packet_size"), at("inter_arrival_time"), at("packet_count_5s"), at("mean_packet_size")
	entropy, fine := at("spectral_entropy"), at("frequency_band_energy")
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 3
		rows, last, clock := 0, int64(math.MinInt64), uint64(0)
		var tr *PacketTracker
		tr = newPacketTracker(t, Config{Columns: columns, MaxSources: limit}, func(r *Row) {
			rows++
			if n := tr.Stats().ClockSteps; n != clock {
				clock, last = n, math.MinInt64
			}
			if r.Time < last || r.Start != r.Time || r.End != r.Time {
				t.Fatalf("row before at %d, %+v", last, r)
			}
			last = r.Time
			for i, v := range r.Values {
				if v != v || v < 0 || math.IsInf(float64(v), 0) {
					t.Fatalf("%s is %v", columns[i], v)
				}
			}
			v := r.Values
			if v[count] < 1 || v[count] > float32(rows) || v[entropy] > 1 || v[fine] > 1 || v[size] != float32(r.Octets[0]) || v[size] > 1<<16 {
				t.Fatalf("row %d: %v", rows, v)
			}
			if v[gap] > 5 && v[count] != 1 || v[gap] == 0 && v[count] == 1 && v[mean] != v[size] {
				t.Fatalf("row %d: %v", rows, v)
			}
		})
		p := packet(0, 0, false, 0)
		packets := 0
		for ; len(in) >= 8; in = in[8:] {
			p.Src[15], p.Proto, p.Flags = in[0]&7, in[1], in[2]
			p.DstPort = uint16(in[3]) << 6
			p.WireLen = int(binary.BigEndian.Uint16(in[4:])) - 2
			pause := int64(binary.BigEndian.Uint16(in[6:]))
			if p.Time += pause * second / 1000; pause > 52_000 {
				p.Time -= pause*second/1000 + (pause-52_000)*second/100
			}
			if in[0] == 255 {
				p.Time *= pause - 32768 // it may overflow: any clock goes
			}
			tr.Add(&p)
			packets++
			if tr.Open() > limit || len(tr.sources.table.chunks) > 1 {
				t.Fatalf("%d sources, %d chunks", tr.Open(), len(tr.sources.table.chunks))
			}
		}
		s := tr.Stats()
		if rows != packets || s.Rows != uint64(rows) {
			t.Fatalf("%d packets, %d rows, %+v", packets, rows, s)
		}
		if tr.Flush(); tr.Open() != 0 {
			t.Fatalf("%d sources left", tr.Open())
		}
	})
}

// BenchmarkPacketTracker takes the packets that 200 devices and 16 servers exchange,
// and those of a flood from as many sources as there are.
func BenchmarkPacketTracker(b *testing.B) {
	var mixed []capture.Packet
	var d capture.Decoder
	for _, f := range mixedTraffic(20_000) {
		var p capture.Packet
		if d.Decode(&f, &p).HasPacket() {
			mixed = append(mixed, p)
		}
	}
	flood := make([]capture.Packet, 20_000)
	for i := range flood {
		flood[i] = packet(float64(i)*1e-5, capture.ProtoTCP, false, 0)
		flood[i].Flags = capture.SYN
		flood[i].Src[13], flood[i].Src[14] = byte(i>>8), byte(i)
	}
	plain := slices.DeleteFunc(slices.Clone(notebookColumns), func(c string) bool {
		return c == "spectral_entropy" || c == "frequency_band_energy"
	})
	for _, traffic := range []struct {
		name    string
		packets []capture.Packet
	}{{"mixed", mixed}, {"flood", flood}} {
		for _, bench := range []struct {
			name    string
			columns []string
		}{{"track", nil}, {"rows", plain}, {"rows+wavelets", notebookColumns}} {
			b.Run(traffic.name+"/"+bench.name, func(b *testing.B) {
				tr := newPacketTracker(b, Config{Columns: bench.columns}, func(*Row) {})
				ps := traffic.packets
				span, offset := ps[len(ps)-1].Time-ps[0].Time+second, int64(0)
				pass := func() {
					for i := range ps {
						p := ps[i]
						p.Time += offset
						tr.Add(&p)
					}
					offset += span
				}
				pass()
				b.ReportAllocs()
				for b.Loop() {
					pass()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ps)), "ns/packet")
			})
		}
	}
}
