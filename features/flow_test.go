package features

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"github.com/picket-ids/picket/capture"
)

// measured returns the values of the given columns in each row that ps make.
func measured(t testing.TB, columns []string, ps ...capture.Packet) (rows []map[string]float64) {
	t.Helper()
	tr := newTracker(t, Config{Columns: columns}, func(r *Row) {
		m := map[string]float64{}
		for i, name := range columns {
			m[name] = float64(r.Values[i])
		}
		rows = append(rows, m)
	})
	for i := range ps {
		tr.Add(&ps[i])
	}
	tr.Flush()
	return rows
}

// wants checks values given as "name value name value ...".
func wants(t testing.TB, row map[string]float64, text string) {
	t.Helper()
	f := strings.Fields(text)
	for i := 0; i < len(f); i += 2 {
		want, err := strconv.ParseFloat(f[i+1], 64)
		got, ok := row[f[i]]
		if err != nil || !ok {
			t.Fatalf("%s %s", f[i], f[i+1])
		}
		if math.Abs(got-want) > 2e-6*math.Abs(want) {
			t.Errorf("%s is %v, want %v", f[i], got, want)
		}
	}
}

func TestFlow(t *testing.T) {
	udp := func(text string) (ps []capture.Packet) { // "seconds side payload, ..."
		for line := range strings.SplitSeq(text, ",") {
			f := strings.Fields(line)
			at, _ := strconv.ParseFloat(f[0], 64)
			n, _ := strconv.Atoi(f[2])
			ps = append(ps, packet(at, capture.ProtoUDP, f[1] == "<", n))
		}
		return ps
	}
	const nothingBack = " bwd_packets 0 bwd_bytes 0 bwd_payload_mean 0 bwd_payload_std 0 bwd_payload_min 0 bwd_payload_max 0" +
		" bwd_gap_mean 0 bwd_gap_std 0 bwd_gap_min 0 bwd_gap_max 0 bwd_ttl 0 bwd_ttl_range 0 bwd_entropy 0 bwd_window 0 down_up_ratio 0"
	for _, tc := range []struct {
		name    string
		packets []capture.Packet
		want    string // of the last row
	}{
		{"request and answer", script(t, "0 > S 100, .1 < SA 900, .3 > A 101, .4 > PA 101+10, .6 < PA 901+30"),
			`flow_duration .6 handshake_time .3 answer_time .1 packet_rate 8.3333333 byte_rate 516.66667 down_up_ratio .66666667
			fwd_packets 3 fwd_bytes 172 fwd_payload_mean 3.3333333 fwd_payload_std 5.7735027 fwd_payload_min 0 fwd_payload_max 10
			fwd_gap_mean .2 fwd_gap_std .14142136 fwd_gap_min .1 fwd_gap_max .3 fwd_syn 1 fwd_ack 2 fwd_psh 1 fwd_fin 0 fwd_rst 0 fwd_urg 0
			bwd_packets 2 bwd_bytes 138 bwd_payload_mean 15 bwd_payload_std 21.213203 bwd_payload_min 0 bwd_payload_max 30
			bwd_gap_mean .5 bwd_gap_std 0 bwd_gap_min .5 bwd_gap_max .5 bwd_syn 1 bwd_ack 2 bwd_psh 1
			size_1 0 size_2 0 size_3 0 size_4 10 size_5 -30 size_6 0 size_7 0 size_8 0`},
		{"one packet", udp("0 > 20"), `flow_duration 0 packet_rate 0 byte_rate 0 fwd_packets 1 fwd_bytes 74 fwd_payload_mean 20 fwd_payload_std 0
			fwd_payload_min 20 fwd_payload_max 20 fwd_gap_mean 0 fwd_gap_std 0 fwd_gap_min 0 fwd_gap_max 0 handshake_time 0 answer_time 0
			size_1 20 size_2 0 size_energy_1 0 size_energy_5 0` + nothingBack},
		{"one way", udp("0 > 10, 1 > 20, 3 > 60"), `flow_duration 3 packet_rate 1 fwd_payload_mean 30 fwd_payload_std 26.457513
			fwd_gap_mean 1.5 fwd_gap_std .70710678 fwd_gap_min 1 fwd_gap_max 2 size_3 60` + nothingBack},
		{"all at one instant", udp("5 > 10, 5 > 10, 5 < 10"), `flow_duration 0 packet_rate 0 byte_rate 0 fwd_packets 2 fwd_gap_mean 0 fwd_gap_std 0
			fwd_gap_min 0 fwd_gap_max 0 bwd_packets 1 size_3 -10 down_up_ratio .5`},
		{"a zero gap among others", udp("0 > 1, 0 > 1, 2 > 1"), "fwd_gap_min 0 fwd_gap_max 2 fwd_gap_mean 1 fwd_gap_std 1.4142136"},
		{"the answer first and last", script(t, "0 < SA 900, .5 > A 1, 1.5 < PA 901+7"), `flow_duration 1.5 fwd_packets 1 bwd_packets 2
			handshake_time 0 answer_time 0 size_3 -7`},
		{"SYN sent again", script(t, "0 > S 100, 1 > S 100, 3 > S 100, 3.25 < SA 900, 3.5 > A 101"), "handshake_time .5 answer_time .25 fwd_syn 3"},
		{"SYN-ACK sent again", script(t, "0 > S 100, .25 < SA 900, 1.25 < SA 900, 1.5 > A 101, 2 > A 101"), "handshake_time 1.5 answer_time .25 bwd_syn 2"},
		{"a late copy of the SYN", script(t, "0 > S 100, .25 < SA 900, .3 > S 100, .5 > A 101"), "handshake_time .5 answer_time .25"},
		{"SYN scan of an open port: a reset is no ACK", script(t, "0 > S 100, .25 < SA 900, .5 > R 101"), "handshake_time 0 answer_time .25 fwd_rst 1"},
		{"reset with ACK", script(t, "0 > S 100, .25 < SA 900, .5 > RA 101"), "handshake_time 0"},
		{"refused", script(t, "0 > S 100, .25 < RA 0"), "handshake_time 0 answer_time 0 bwd_rst 1 bwd_ack 1"},
		{"one side of a handshake", script(t, "0 > S 100, .5 > A 101, .6 > PA 101+5"), "handshake_time 0 answer_time 0"},
		{"from the middle", script(t, "0 > PA 101+5, .5 < A 901"), "handshake_time 0 answer_time 0 fwd_psh 1"},
		{"all flags", script(t, "0 > FSRPAU 1"), "fwd_fin 1 fwd_syn 1 fwd_rst 1 fwd_psh 1 fwd_ack 1 fwd_urg 1 fwd_ece 0 fwd_cwr 0 handshake_time 0"},
		{"sizes past an int16", udp("0 > 65507, 1 < 65507, 2 < 40000"), `size_1 32767 size_2 -32767 size_3 -32767 fwd_payload_max 65507
			bwd_payload_max 65507 bwd_payload_min 40000 bwd_payload_mean 52753.5`},
		{"more sizes than are kept", udp("0 > 1" + strings.Repeat(", 1 < 2", 90)), "size_1 1 size_8 -2 bwd_packets 90"},
		{"wavelet of 8 sizes", udp("0 > 0, .1 > 0, .2 > 0, .3 > 100, .4 < 300, .5 > 0, .6 > 0, .7 > 0"),
			"size_energy_1 .604490867 size_energy_2 .382126939 size_energy_3 .013382194 size_energy_4 0 size_energy_5 0"}, // PyWavelets 1.8.0
		{"wavelet of 9 sizes", series(9), "size_energy_1 .605269696 size_energy_2 .264405014 size_energy_3 .079301944 size_energy_4 .051023346 size_energy_5 0"},
		{"wavelet of 20 sizes", series(20), "size_energy_1 .857173157 size_energy_2 .116464273 size_energy_3 .007068982 size_energy_4 .006530513 size_energy_5 .012763075"},
		{"wavelet of 64 sizes", series(64), "size_energy_1 .81791223 size_energy_2 .111567911 size_energy_3 .058147391 size_energy_4 .003520203 size_energy_5 .008852265"},
		{"wavelet of the first 64 sizes", append(series(64), udp("2 > 900, 2 > 0, 2 < 9")...), "size_energy_1 .81791223 fwd_packets 45 bwd_packets 22"},
		{"wavelet of equal sizes", udp("0 > 7, 1 > 7, 2 > 7"), "size_energy_1 0 size_energy_2 0"},
		// Whole minutes owe no row of their own here: the counts are of all of it.
		{"longer than the active timeout", udp("0 > 10, 40 < 30, 80 > 20, 130 > 60"), `flow_duration 130 fwd_packets 3 fwd_payload_mean 30
			fwd_gap_mean 65 fwd_gap_std 21.213203 fwd_gap_max 80 bwd_packets 1`},
		{"both directions of one end", land(3), "fwd_packets 3 bwd_packets 0 flow_duration 2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rows := measured(t, names(flowGroup), tc.packets...)
			wants(t, rows[len(rows)-1], tc.want)
		})
	}
}

// series makes n packets whose sizes TestFlow's wavelet energies are of.
func series(n int) (ps []capture.Packet) {
	for i := range n {
		ps = append(ps, packet(float64(i)/100, capture.ProtoUDP, i%3 == 0 && i > 0, 37*i*i%701))
	}
	return ps
}

func land(n int) (ps []capture.Packet) {
	for i := range n {
		p := packet(float64(i), capture.ProtoUDP, false, 0)
		p.Dst, p.DstPort = p.Src, p.SrcPort
		ps = append(ps, p)
	}
	return ps
}

// TestFlowActive: the rows of a connection that lasts count all of it so far.
func TestFlowActive(t *testing.T) {
	var ps []capture.Packet
	for i := range 16 {
		ps = append(ps, packet(float64(i)*10, capture.ProtoUDP, i%4 == 3, 10*i))
	}
	rows := measured(t, names(flowGroup), ps...)
	if len(rows) != 3 {
		t.Fatalf("%d rows", len(rows))
	}
	wants(t, rows[0], "fwd_packets 5 bwd_packets 1 flow_duration 50 fwd_payload_max 50") // before that of 60 s
	wants(t, rows[1], "fwd_packets 9 bwd_packets 3 flow_duration 110 fwd_payload_max 100")
	wants(t, rows[2], "fwd_packets 12 bwd_packets 4 flow_duration 150 fwd_payload_max 140 bwd_payload_max 150")
}

// TestFlowReuse: a connection that takes over the memory of one before it
// starts from nothing, and the tails of sizes are used again.
func TestFlowReuse(t *testing.T) {
	var f flows
	var tr transform
	var p capture.Packet
	for round := range 100 {
		f.begin(3)
		for i := range 20 {
			p.PayloadLen = 100 + i%7
			f.packet(3, nil, &p, originator, int64(i), 0)
		}
		long := f.bands(3, &tr)
		if long.total() == 0 || f.used != 1 {
			t.Fatalf("round %d: %v, %d tails", round, long, f.used)
		}
		f.begin(3)
		f.packet(3, nil, &p, responder, 5, 0)
		if c := f.conns.at(3); c.tail != 0 || c.packets != 1 || c.side[originator].packets != 0 {
			t.Fatalf("left over: %+v", c)
		}
	}
}

func TestFlowHeaders(t *testing.T) {
	ps := script(t, "0 > S 1, .1 > A 2, .2 > PA 2+4, .3 > R 6, .4 < A 9")
	for i, v := range []struct {
		ttl    uint8
		window uint16
	}{{64, 64240}, {63, 501}, {70, 300}, {64, 0}, {255, 9000}} {
		ps[i].TTL, ps[i].Window = v.ttl, v.window
	}
	ps[2].Payload, ps[4].Payload = []byte("abab"), []byte("never")[:0]
	rows := measured(t, names(flowGroup), ps...)
	wants(t, rows[len(rows)-1], `fwd_ttl 64 fwd_ttl_range 7 fwd_window 64240 fwd_window_min 300 fwd_entropy 1
		bwd_ttl 255 bwd_ttl_range 0 bwd_window 9000 bwd_window_min 9000 bwd_entropy 0`)
}

// TestFlowSmallDeviation: sizes and gaps that differ by little after many, the
// case in which the difference of two large sums has no digits left.
func TestFlowSmallDeviation(t *testing.T) {
	const n = 200_000
	var d flowSide
	var sum, squares big.Int
	now, last := int64(1_700_000_000e9), int64(0)
	for i := range n {
		p := capture.Packet{PayloadLen: 65_000}
		gap := int64(100e9)
		if i%1000 == 999 {
			p.PayloadLen++
			gap += 1000 // 1 µs
		}
		if i > 0 {
			sum.Add(&sum, big.NewInt(gap))
			squares.Add(&squares, new(big.Int).Mul(big.NewInt(gap), big.NewInt(gap)))
		}
		if now += gap; i == 0 {
			last = now
		}
		d.add(&p, now)
	}
	if last != d.first {
		t.Fatal(d)
	}
	// One in 1000 is 1 larger: variance k(n-k)/n/(n-1).
	if want := math.Sqrt(200 * (n - 200) / float64(n) / (n - 1)); math.Abs(d.sizeStd()-want) > 1e-15 {
		t.Errorf("sizes: %v, want %v", d.sizeStd(), want)
	}
	k := big.NewInt(n - 1)
	squares.Sub(squares.Mul(&squares, k), new(big.Int).Mul(&sum, &sum))
	want, _ := new(big.Rat).SetFrac(&squares, k.Mul(k, big.NewInt(n-2))).Float64()
	if want = math.Sqrt(want) / 1e9; math.Abs(d.gapStd()-want) > 1e-6*want {
		t.Errorf("gaps: %v s, want %v s", d.gapStd(), want)
	}
}

// TestFlowLongGaps: hours of silence, and packets whose clock stands still.
func TestFlowLongGaps(t *testing.T) {
	var d flowSide
	for _, s := range []int64{0, 7200, 7200, 86_400 * 400} {
		d.add(&capture.Packet{}, s*second)
	}
	if d.gapMax != 86_400*400-7200 || d.gapMin != 0 || d.gapMean() != 86_400*400/3. {
		t.Errorf("%v to %v, mean %v", d.gapMin, d.gapMax, d.gapMean())
	}
	if want := 1.9946990e7; math.Abs(d.gapStd()-want) > 1 {
		t.Errorf("%v", d.gapStd())
	}
}

func TestEntropy(t *testing.T) {
	all := make([]byte, entropyLen)
	for i := range all {
		all[i] = byte(i)
	}
	for _, tc := range []struct {
		b    []byte
		want float64
	}{
		{nil, 0}, {[]byte{7}, 0}, {bytes.Repeat([]byte{0}, entropyLen), 0}, {bytes.Repeat([]byte("x"), 777), 0},
		{[]byte("ab"), 1}, {[]byte("aab"), .9182958340544896}, {[]byte("abcd"), 2}, {all[:256], 8}, {all, 8},
		{[]byte("hello world"), 2.845350936622437}, // scipy.stats.entropy 1.15, base 2
	} {
		if got := entropy(tc.b); math.Abs(got-tc.want) > 1e-12 || tc.want == 0 && got != 0 {
			t.Errorf("%.20q: %v, want %v", tc.b, got, tc.want)
		}
	}
	// Rounding must not depend on the last bit of a logarithm.
	for n := 2; n < len(nLogN); n++ {
		x := float64(n) * math.Log2(float64(n)) * (1 << 40)
		if math.Abs(x-float64(nLogN[n])) > 8 {
			t.Errorf("%d log2 %d is %d/2^40, want %v", n, n, nLogN[n], x)
		}
	}
}

// TestFloat compares with the math package, within rounding errors.
func TestFloat(t *testing.T) {
	rng := newRand(5)
	for range 100_000 {
		s := rng.Int64N(70 * longSpan)
		if rng.IntN(2) == 0 {
			s = rng.Int64N(second)
		}
		want := math.Exp(-float64(s) / float64(longSpan))
		if s >= 64*longSpan {
			want = 0
		}
		if got := fade(s, longSpan); math.Abs(got-want) > 1e-14*want || got > 1 {
			t.Fatalf("e^-%d/%d is %v, want %v", s, longSpan, got, want)
		}
		x := math.Exp(rng.Float64()*100 - 50)
		if rng.IntN(2) == 0 {
			x = 1 + rng.NormFloat64()/1e3
		}
		if got, want := ln(x), math.Log(x); math.Abs(got-want) > 1e-15*max(1, math.Abs(want)) {
			t.Fatalf("ln %v is %v, want %v", x, got, want)
		}
	}
	if fade(0, 1) != 1 || fade(-5, 1) != 1 || fade(math.MinInt64, 1) != 1 || ln(1) != 0 {
		t.Error("at the ends")
	}
}

// TestColumnsAlone: a column has the same value beside all others as alone.
func TestColumnsAlone(t *testing.T) {
	ps := randomPackets(newRand(31), 1500)
	all := names(featuresOf(ConnectionRow))
	together := measured(t, all, ps...)
	for _, name := range all {
		for i, row := range measured(t, []string{name}, ps...) {
			if row[name] != together[i][name] {
				t.Fatalf("row %d: %s is %v alone, %v beside others", i, name, row[name], together[i][name])
			}
		}
	}
}

// TestBits: the rows have the same bits on every architecture, checked on amd64,
// 386 and, emulated, arm64, whose compiler fuses multiplication and addition. A
// change of a feature's definition changes the number too.
func TestBits(t *testing.T) {
	var d capture.Decoder
	var p capture.Packet
	rng := newRand(3)
	h := fnv.New64a()
	tr := newTracker(t, Config{Columns: append(names(flowGroup), append(names(behaviourGroup), names(dnsFeatures)...)...)}, func(r *Row) {
		binary.Write(h, binary.LittleEndian, r.Values)
	})
	for _, f := range mixedTraffic(10_000) {
		if !d.Decode(&f, &p).HasPacket() {
			t.Fatal("not decoded")
		}
		for i := range p.Payload {
			p.Payload[i] = byte(rng.IntN(1 + rng.IntN(256)))
		}
		if p.SrcPort == 53 || p.DstPort == 53 {
			p.Payload = dnsMessage(noDomain&^(0x8000*uint16(p.DstPort/53&1)), string(p.Payload[:1])+"."+string(p.Payload[:2]))
		}
		p.Time += rng.Int64N(second) // not a round number
		tr.Add(&p)
	}
	tr.Flush()
	if got := h.Sum64(); got != 0x0a111b8f30df7f32 {
		t.Errorf("rows: %#x", got)
	}
	// Behind them: float32 hides most differences of a last bit.
	h.Reset()
	var w transform
	var side flowSide
	for i := range 1000 {
		n := 1 + rng.IntN(seriesLen)
		for k := range n {
			w.put(k, rng.Float64())
		}
		b := w.run(n)
		side.add(&p, int64(i)*second+rng.Int64N(second))
		binary.Write(h, binary.LittleEndian, []float64{b.energy[0], b.energy[4], b.entropy(), side.swing,
			fade(rng.Int64N(10*longSpan), longSpan), ln(rng.Float64())})
	}
	if got := h.Sum64(); got != 0x7d88cd5f47c8d66d {
		t.Errorf("parts: %#x", got)
	}
}
