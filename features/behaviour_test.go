package features

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/picket-ids/picket/capture"
)

// refSet is recentSketch with exact sets.
type refSet struct {
	since    int64
	old, new map[any]bool
}

func (s *refSet) turn(now, span int64) {
	switch age := now - s.since; {
	case s.new == nil || age >= span:
		s.since, s.old, s.new = now, map[any]bool{}, map[any]bool{}
	case age >= span/2:
		s.since, s.old, s.new = s.since+span/2, s.new, map[any]bool{}
	}
}

func (s *refSet) add(v any) (isNew bool) {
	isNew = !s.old[v] && !s.new[v]
	s.new[v] = true
	return isNew
}

func (s *refSet) count() int {
	n := len(s.new)
	for v := range s.old {
		if !s.new[v] {
			n++
		}
	}
	return n
}

// refHost remembers all that ever happened to a host.
type refHost struct {
	peers, ports                 [2]refSet
	connections, failed, newPeer []int64 // times
}

func faded(times []int64, now, span int64) (sum float64) {
	for _, t := range times {
		sum += math.Exp(-float64(now-t) / float64(span))
	}
	return sum
}

// host columns in the order of the reference's figures.
var hostColumns = []string{"peers_60s", "ports_60s", "connections_60s", "failed_share_60s",
	"peers_600s", "ports_600s", "connections_600s", "failed_share_600s", "new_peer_rate"}

// check compares a row's figures of a host, the connection r included.
func (h *refHost) check(t *testing.T, r *Row, peer capture.Addr, values []float32, worst map[string]float64) {
	t.Helper()
	for k, span := range hostSpans {
		h.peers[k].turn(r.Time, span)
		h.ports[k].turn(r.Time, span)
	}
	if r.Serial == 0 {
		h.peers[0].add(peer)
		if h.peers[1].add(peer) {
			h.newPeer = append(h.newPeer, r.Time)
		}
		h.ports[0].add(r.DstPort)
		h.ports[1].add(r.DstPort)
		h.connections = append(h.connections, r.Time)
		if r.Refused {
			h.failed = append(h.failed, r.Time)
		}
	}
	for k, span := range hostSpans {
		v := values[4*k:]
		for i, s := range []*refSet{&h.peers[k], &h.ports[k]} {
			n := float64(s.count())
			if e := math.Abs(float64(v[i])-n) / max(n, 1); n < 2 && e > 0 || e > .55 {
				t.Fatalf("%s: %v, want %v", hostColumns[4*k+i], v[i], n)
			} else {
				worst[hostColumns[4*k+i]+" mean"] += e
				worst["rows"] += .25
			}
		}
		connections, failed := faded(h.connections, r.Time, span), faded(h.failed, r.Time, span)
		if math.Abs(float64(v[2])-connections) > 1e-6*connections+1e-8 || math.Abs(float64(v[3])-failed/connections) > 1e-6 && connections > 1e-6 {
			t.Fatalf("connections %v failed %v, want %v %v", v[2], v[3], connections, failed/connections)
		}
	}
	if want := faded(h.newPeer, r.Time, shortSpan) / 60; math.Abs(float64(values[8])-want) > .6*want+.1 {
		t.Fatalf("new_peer_rate %v, want %v", values[8], want)
	} else {
		worst["new peers"] += float64(values[8])
		worst["new peers wanted"] += want
	}
}

// TestBehaviour compares the rows of random traffic with a reference that
// forgets nothing: a few hosts that talk, one that sweeps.
func TestBehaviour(t *testing.T) {
	var columns []string
	for _, side := range []string{"src_", "victim_"} {
		for _, c := range hostColumns {
			columns = append(columns, side+c)
		}
	}
	if got := names(behaviourGroup); !slices.Equal(got[:len(columns)], columns) {
		t.Fatalf("columns %v", got)
	}
	sources, victims := map[capture.Addr]*refHost{}, map[capture.Addr]*refHost{}
	worst := map[string]float64{}
	of := func(m map[capture.Addr]*refHost, a capture.Addr) *refHost {
		if m[a] == nil {
			m[a] = &refHost{}
		}
		return m[a]
	}
	rows := 0
	tr := newTracker(t, Config{Columns: columns}, func(r *Row) {
		rows++
		of(sources, r.Src).check(t, r, r.Dst, r.Values, worst)
		of(victims, r.Dst).check(t, r, r.Src, r.Values[len(hostColumns):], worst)
	})
	rng := newRand(20)
	now := epoch
	for range 6000 {
		switch rng.IntN(400) {
		case 0:
			now += rng.Int64N(1300) * second
		default:
			now += rng.Int64N(2 * second)
		}
		p := packet(0, []uint8{capture.ProtoTCP, capture.ProtoUDP}[rng.IntN(2)], false, 0)
		p.Time, p.Flags = now, capture.SYN
		p.Src[15], p.Dst[15] = byte(rng.IntN(5)), 100+byte(rng.IntN(30))
		if p.Src[15] == 4 { // sweeps
			p.Dst[15], p.Dst[14] = byte(rng.Uint32()), byte(rng.IntN(3))
		}
		p.SrcPort, p.DstPort = uint16(1024+rng.IntN(60_000)), uint16(rng.IntN(1+rng.IntN(300)))
		tr.Add(&p)
		if rng.IntN(3) == 0 {
			p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
			p.Flags = []uint8{capture.SYN | capture.ACK, capture.RST | capture.ACK}[rng.IntN(2)]
			tr.Add(&p)
		}
	}
	tr.Flush()
	for name, sum := range worst {
		if e := sum / worst["rows"]; strings.HasSuffix(name, " mean") && e > .12 {
			t.Errorf("%s error %v", name, e)
		}
	}
	if f := worst["new peers"] / worst["new peers wanted"]; math.Abs(f-1) > .1 {
		t.Errorf("new peers are %v of what they were", f)
	}
	t.Logf("%d rows, %v", rows, worst)
}

// TestRecentSketch sweeps: the estimate of new values adds up, and the count is
// good to a few standard errors, in 40 sets of values.
func TestRecentSketch(t *testing.T) {
	for _, n := range []int{0, 1, 2, 10, 100, 254, 1000, 10_000, 65_536} {
		count, fresh, worst := 0.0, 0.0, 0.0
		const sets = 40
		for set := range sets {
			var r recentSketch
			r.turn(epoch, shortSpan)
			sum := 0.0
			for i := range n {
				a := server
				a[11], a[13], a[14], a[15] = byte(set), byte(i>>16), byte(i>>8), byte(i)
				sum += r.add(HashAddr(a))
				if r.add(HashAddr(a)) != 0 {
					t.Fatal("the same value is new twice")
				}
			}
			count += r.count() / sets
			fresh += sum / sets
			worst = max(worst, math.Abs(r.count()-float64(n)))
			if n < 2 && r.count() != float64(n) {
				t.Errorf("%d values: %v", n, r.count())
			}
		}
		if f := float64(n); worst > 5.5*.13*f+1 || math.Abs(count-f) > .08*f+.3 || math.Abs(fresh-f) > .08*f+.1 {
			t.Errorf("%d values: %v on average, %v off at worst, %v new", n, count, worst, fresh)
		}
	}
	var r recentSketch // lost and taken follow the registers through all turns
	rng, now := newRand(3), int64(0)
	for range 20_000 {
		now += rng.Int64N(shortSpan / 50)
		if rng.IntN(200) == 0 {
			now += rng.Int64N(2 * shortSpan)
		}
		r.turn(now, shortSpan)
		r.add(rng.Uint64())
		sum, taken := 0.0, 0
		for k := range 64 {
			rank := max(r.registers[0][k], r.registers[1][k])
			if sum += math.Ldexp(1, -int(rank)); rank > 0 {
				taken++
			}
		}
		if got := 64 - math.Ldexp(float64(r.lost), -57); got != sum || taken != int(r.taken) {
			t.Fatalf("sum %v taken %d, want %v %d", got, r.taken, sum, taken)
		}
	}
	for n, e := range linearCounts { // no rounding at the mercy of a last bit
		if x := 64 * math.Log(64/float64(64-n)); math.Abs(x-math.Floor(x)-.5) < 1e-6 || e != math.Round(x) {
			t.Errorf("%d taken: %v, %v", n, e, x)
		}
	}
}

// TestRecentSketchTurns: a value is counted for half a span at least and for one
// at most.
func TestRecentSketchTurns(t *testing.T) {
	for start := range int64(40) {
		for age := range int64(100) {
			var r recentSketch
			r.turn(epoch, shortSpan) // sets the phase
			r.turn(epoch+start*second, shortSpan)
			r.add(1)
			r.turn(epoch+(start+29)*second, shortSpan)
			r.turn(epoch+(start+age)*second, shortSpan)
			if n := r.count(); age < 30 && n != 1 || age >= 60 && n != 0 {
				t.Fatalf("added at %d s, %d s old: %v", start, age, n)
			}
		}
	}
}

func TestPeriodicity(t *testing.T) {
	rng := newRand(4)
	beacon := func(n int, gap func(i int) float64) (p pair) {
		at := 0.0
		for i := range n {
			p.add(epoch + int64(at*1e9))
			at += gap(i)
		}
		return p
	}
	for _, tc := range []struct {
		name             string
		pair             pair
		atLeast, atMost  float64
		gapAtLeast, most float64
	}{
		{"a clock", beacon(20, func(int) float64 { return 60 }), 1, 1, 60, 60},
		{"five of a clock", beacon(5, func(int) float64 { return 60 }), 1, 1, 60, 60},
		{"four", beacon(4, func(int) float64 { return 60 }), 0, 0, 60, 60},
		{"one", beacon(1, nil1), 0, 0, 0, 0},
		{"ten a second", beacon(50, func(int) float64 { return .1 }), 0, 0, .1, .1},
		{"all at once", beacon(50, func(int) float64 { return 0 }), 0, 0, 0, 0},
		{"a clock with 10 % jitter", beacon(50, func(int) float64 { return 60 * (.9 + .2*rng.Float64()) }), .85, .99, 54, 66},
		{"one beat left out, ten since", beacon(40, func(i int) float64 { return 60 + 60*oneIf(i == 29) }), .9, 1, 60, 65},
		{"twos: 1 s, then 59 s", beacon(50, func(i int) float64 { return 1 + 58*float64(i%2) }), 0, 0, 20, 40},
	} {
		if v := tc.pair.periodicity(); v < tc.atLeast || v > tc.atMost || tc.pair.gap < tc.gapAtLeast-1e-9 || tc.pair.gap > tc.most+1e-9 {
			t.Errorf("%s: %v, gap %v", tc.name, v, tc.pair.gap)
		}
	}
	// Chance: Poisson traffic at each length.
	for _, n := range []int{5, 10, 50} {
		sum, high := 0.0, 0
		for range 5000 {
			p := beacon(n, func(int) float64 { return 60 * rng.ExpFloat64() })
			v := p.periodicity()
			sum += v
			if v > .8 {
				high++
			}
		}
		t.Logf("%d random connections: %.3f on average, above .8 in %d of 5000", n, sum/5000, high)
		if sum/5000 > .25 || high > 50 {
			t.Errorf("%d random connections: %v on average, above .8 in %d of 5000", n, sum/5000, high)
		}
	}
}

func nil1(int) float64 { return 0 }

// TestPeriodicityOrder: connections that overlap end in another order than they
// begin in; the gaps of neighbours that swap places stay what they are.
func TestPeriodicityOrder(t *testing.T) {
	var p pair
	for _, i := range []int64{0, 1, 3, 2, 4, 5, 7, 6, 8, 9} {
		p.add(epoch + i*60*second)
		if p.gap < 0 || p.swing < 0 {
			t.Fatalf("%+v", p)
		}
	}
	if p.n != 10 || p.last != epoch+9*60*second || p.gap < 60 {
		t.Errorf("%+v", p)
	}
}

// TestBeaconInMix: a bot that calls home each 30 s stands out of its host's
// other traffic and that of others.
func TestBeaconInMix(t *testing.T) {
	rng := newRand(6)
	columns := []string{"periodicity", "repeat_gap", "repeats"}
	c2 := addr("203.0.113.5")
	beacons, others := 0, 0
	tr := newTracker(t, Config{Columns: columns}, func(r *Row) {
		switch v := r.Values; {
		case r.Dst == c2 && r.Serial == 0:
			if beacons++; int(v[2]) != beacons || beacons >= 5 && (v[0] < .9 || v[1] < 29 || v[1] > 31) || beacons < 5 && v[0] != 0 {
				t.Errorf("beacon %d: %v", beacons, v)
			}
		case r.Dst != c2 && v[0] > .9:
			others++
		}
	})
	next := epoch
	for now := epoch; now < epoch+1800*second; now += rng.Int64N(second) {
		p := packet(0, capture.ProtoUDP, false, 10)
		p.Time, p.SrcPort = now, uint16(1024+rng.IntN(60_000))
		if now >= next {
			next += 30 * second
			p.Dst, p.DstPort = c2, 8443
		} else {
			p.Src[15], p.Dst[15], p.DstPort = 9+byte(rng.IntN(3)), byte(rng.IntN(40)), []uint16{53, 443}[rng.IntN(2)]
		}
		tr.Add(&p)
	}
	tr.Flush()
	if beacons != 60 || others > 10 {
		t.Errorf("%d beacons, %d others taken for one", beacons, others)
	}
}

// TestBehaviourRows: a connection counts once, however many rows it has.
func TestBehaviourRows(t *testing.T) {
	var ps []capture.Packet
	for i := range 30 {
		ps = append(ps, packet(float64(10*i), capture.ProtoUDP, false, 1))
	}
	rows := measured(t, names(behaviourGroup), ps...)
	if len(rows) < 5 {
		t.Fatalf("%d rows", len(rows))
	}
	for i, r := range rows {
		wants(t, r, "repeats 1 repeat_gap 0 periodicity 0")
		if want := math.Exp(-float64(i)); i < len(rows)-1 && math.Abs(r["src_connections_60s"]-want) > 1e-6 {
			t.Errorf("row %d: %v connections, want %v", i, r["src_connections_60s"], want)
		}
	}
}

// TestBehaviourForgets: at the caps the hosts unheard of longest go, and a clock
// that starts anew begins with nothing.
func TestBehaviourForgets(t *testing.T) {
	b := newBehaviour()
	c := conn{key: connKey{proto: capture.ProtoUDP, hiPort: 9}}
	now := epoch
	visit := func(i int) behaviourView {
		c.key.lo[14], c.key.lo[15], c.key.lo[13] = byte(i>>8), byte(i), byte(i>>16)
		now += second / 1000
		return b.measure(&c, now, false, true)
	}
	for i := range 3 * maxHosts {
		if v := visit(i); v.source.peers[0] != 1 || math.Round(v.victim.connections[1]) != float64(2*i+1) && i < 100 {
			t.Fatalf("host %d: %+v", i, v)
		}
		visit(0) // stays, since it comes again and again
	}
	if n := b.sources.table.len(); n != maxHosts || b.sources.evicted != 2*maxHosts || b.pairs.table.len() != maxPairs {
		t.Errorf("%d sources, %d evicted, %d pairs", n, b.sources.evicted, b.pairs.table.len())
	}
	tr := Tracker{roles: newRoles(), conns: newTable[connKey, conn](1), rows: rower{groups: []group{b, newDNS(), newRates()}}}
	if n := tr.Stats().Forgotten; n != 2*maxHosts+b.pairs.evicted || b.pairs.evicted == 0 {
		t.Errorf("%d forgotten", n)
	}
	if v := visit(0); v.repeats != 3*maxHosts+2 {
		t.Errorf("%v repeats", v.repeats)
	}
	if v := visit(5); v.repeats != 1 || v.source.connections[0] != 1 {
		t.Errorf("evicted and back: %+v", v)
	}
	b.reset()
	if v := visit(0); v.repeats != 1 || v.source.connections[0] != 1 || v.victim.peers[1] != 1 {
		t.Errorf("after reset: %+v", v)
	}
}

// TestBehaviourClock: any times that a tracker may give leave numbers.
func TestBehaviourClock(t *testing.T) {
	b := newBehaviour()
	c := conn{key: connKey{proto: capture.ProtoUDP}}
	for _, now := range []int64{-maxTime, -maxTime, -5, 0, 0, 1, 59 * second, epoch, maxTime, maxTime, 1<<63 - 1} {
		c.start = now
		for _, first := range []bool{true, false} {
			v := b.measure(&c, now, true, first)
			for _, h := range []hostView{v.source, v.victim} {
				for _, x := range append(append(append(h.peers[:], h.ports[:]...), h.connections[:]...), append(h.failedShare[:], h.newPeers, v.gap, v.periodicity)...) {
					if !(x >= 0) || math.IsInf(x, 0) {
						t.Fatalf("at %d: %+v", now, v)
					}
				}
			}
		}
	}
}
