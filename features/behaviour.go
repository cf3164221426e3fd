package features

import (
	"math"
	"math/bits"

	"github.com/picket-ids/picket/capture"
)

// The behaviour group looks at a connection's source, its victim and the pair of
// both over 60 s and 10 min. Each connection counts once, with its first row.

const (
	maxHosts = 4096 // sources, and as many victims, remembered at a time
	maxPairs = 8192 // of source, destination and service

	shortSpan = 60 * second
	longSpan  = 600 * second
)

// recentSketch counts distinct values among those of about the last span: by
// HyperLogLog with 64 registers (standard error 13 %) over the current and the
// last half span, so over 0.5 to 1 span. It is exact for none and one. The zero
// value is empty.
type recentSketch struct {
	since     int64 // ns, begin of the current half
	registers [2][64]uint8
	// lost is how much less than 64 the sum of 2^-rank is, in units of 2^-57,
	// over the registers of both halves; taken counts those that are not 0.
	lost    uint64
	current uint8
	taken   uint8
}

const maxRank = 57

// turn forgets what is older than a span.
func (r *recentSketch) turn(now, span int64) {
	switch age := now - r.since; {
	case age < span/2:
		return
	case age < span:
		r.current = 1 - r.current
		r.registers[r.current] = [64]uint8{}
		r.since += span / 2
	default:
		*r = recentSketch{since: now}
		return
	}
	r.lost, r.taken = 0, 0
	for _, rank := range r.registers[1-r.current] {
		if rank > 0 {
			r.lost += 1<<maxRank - 1<<(maxRank-rank)
			r.taken++
		}
	}
}

// add counts a value by its hash. It returns an estimate of how many new values
// that was: 0 if it changed nothing, else the reciprocal of the chance that a new
// one changes something (Ting, KDD 2014), which adds up without bias.
func (r *recentSketch) add(hash uint64) (fresh float64) {
	k, rank := hash>>58, min(uint8(bits.LeadingZeros64(hash<<6|1<<5))+1, maxRank)
	if old := max(r.registers[0][k], r.registers[1][k]); rank > old {
		fresh = 1 << 63 / float64(1<<63-r.lost)
		r.lost += 1<<(maxRank-old) - 1<<(maxRank-rank)
		if old == 0 {
			r.taken++
		}
	}
	c := &r.registers[r.current][k]
	*c = max(*c, rank)
	return fresh
}

func (r *recentSketch) count() float64 {
	const m = 64.0
	if e := 0.709 * m * (1 << 63) / float64(1<<63-r.lost); e > 2.5*m || r.taken == 64 {
		return math.Round(e)
	}
	return linearCounts[r.taken]
}

// linearCounts are the estimates by how many of the registers are not 0.
var linearCounts = func() (l [64]float64) {
	for n := range l {
		l[n] = math.Round(64 * ln(64/float64(64-n)))
	}
	return l
}()

// host is what is remembered of one address, as a source or as a victim.
type host struct {
	at       int64       // ns, the time that the decayed counters stand at
	spans    [2]hostSpan // shortSpan, longSpan
	newPeers float64     // decayed over shortSpan
}

// hostSpan is that over one span: connections and failed fall to 1/e in it.
type hostSpan struct {
	peers, ports        recentSketch
	connections, failed float64
}

var hostSpans = [2]int64{shortSpan, longSpan}

// hostView is what a row says of one host.
type hostView struct {
	peers, ports, connections, failedShare [2]float64
	newPeers                               float64
}

// turn brings h to the present.
func (h *host) turn(now int64) {
	for k, span := range hostSpans {
		h.spans[k].peers.turn(now, span)
		h.spans[k].ports.turn(now, span)
	}
	if now <= h.at {
		return
	}
	long := fade(now-h.at, longSpan)
	f2 := long * long
	f4 := f2 * f2
	short := f4 * f4 * f2 // shortSpan is a tenth of longSpan
	h.at = now
	h.spans[0].fade(short)
	h.spans[1].fade(long)
	h.newPeers = fadeBy(h.newPeers, short)
}

func (s *hostSpan) fade(f float64) {
	s.connections, s.failed = fadeBy(s.connections, f), fadeBy(s.failed, f)
}

// fadeBy is v*f, 0 when next to nothing is left.
func fadeBy(v, f float64) float64 {
	if v *= f; v < 1e-9 {
		return 0
	}
	return v
}

// add counts a connection with a peer at a port. h must be turned to its time.
func (h *host) add(peer, port uint64, failed bool) {
	for k := range h.spans {
		s := &h.spans[k]
		fresh := s.peers.add(peer)
		s.ports.add(port)
		s.connections++
		if failed {
			s.failed++
		}
		if k == 1 {
			h.newPeers += fresh
		}
	}
}

func (h *host) view() (v hostView) {
	for k := range h.spans {
		s := &h.spans[k]
		v.peers[k], v.ports[k] = s.peers.count(), s.ports.count()
		v.connections[k] = s.connections
		v.failedShare[k] = min(1, ratio(s.failed, s.connections))
	}
	v.newPeers = h.newPeers / (float64(shortSpan) / 1e9)
	return v
}

// pairKey is a source, a victim and the service between them.
type pairKey struct {
	src, dst capture.Addr
	port     uint16
	proto    uint8
}

func (k *pairKey) hash() uint64 {
	return mix(hashAddr(&k.src)^uint64(k.port)<<8^uint64(k.proto), hashAddr(&k.dst))
}

// pair follows the times at which connections of a pair begin.
type pair struct {
	last  int64   // ns, the latest begin
	n     uint32  // connections
	gap   float64 // s, mean, of the first four and then weighted by a quarter
	swing float64 // s, mean deviation from the mean before it, likewise
}

// add takes connections in the order in which they end: one that began before
// the last is as far from it as one that began behind.
func (p *pair) add(start int64) {
	if p.n == 0 {
		p.last = start
	} else {
		gap := math.Abs(float64(start-p.last) / 1e9)
		if p.n > 1 {
			p.swing += (math.Abs(gap-p.gap) - p.swing) / float64(min(p.n-1, 4))
		}
		p.gap += (gap - p.gap) / float64(min(p.n, 4))
	}
	p.n++
	p.last = max(p.last, start)
}

// periodicity is 1 for a clock, near 0 for chance; 0 with fewer than five
// connections or less than a second between them.
func (p *pair) periodicity() float64 {
	if p.n < 5 || p.gap < 1 {
		return 0
	}
	return max(0, 1-p.swing/p.gap)
}

var behaviourKind = groupKind{func(opener) group { return newBehaviour() }}

// behaviour is the state of the group. It belongs to the tracker.
type behaviour struct {
	columnsOf[behaviourView]
	current          behaviourView // of the row being made
	sources, victims *lru[capture.Addr, host]
	pairs            *lru[pairKey, pair]
}

func newBehaviour() *behaviour {
	return &behaviour{
		sources: newLRU[capture.Addr, host](maxHosts), victims: newLRU[capture.Addr, host](maxHosts), pairs: newLRU[pairKey, pair](maxPairs),
	}
}

// behaviourView is what a row says of them.
type behaviourView struct {
	source, victim hostView
	periodicity    float64
	gap            float64 // s
	repeats        float64
}

func (b *behaviour) row(_ int32, c *conn, s *sample, values []float32) {
	b.current = b.measure(c, s.time, s.refused, s.first)
	b.set(values, &b.current)
}

// measure counts a connection, if it is the first of its rows, and returns the
// figures that include it.
func (b *behaviour) measure(c *conn, now int64, failed, first bool) (v behaviourView) {
	k := pairKey{c.addr(originator), c.addr(responder), c.servicePort(), c.key.proto}
	source, _ := b.sources.use(&k.src, hashAddr(&k.src))
	victim, _ := b.victims.use(&k.dst, hashAddr(&k.dst))
	pair, _ := b.pairs.use(&k, k.hash())
	source.turn(now)
	victim.turn(now)
	if first {
		port := HashPort(k.port)
		if !c.unsure { // it accuses nobody
			source.add(HashAddr(k.dst), port, failed)
		}
		victim.add(HashAddr(k.src), port, failed)
		pair.add(c.start)
	}
	return behaviourView{source.view(), victim.view(), pair.periodicity(), pair.gap, float64(pair.n)}
}

// reset forgets all.
func (b *behaviour) reset() {
	b.sources.reset()
	b.victims.reset()
	b.pairs.reset()
}

func (b *behaviour) forgotten() uint64 {
	return b.sources.evicted + b.victims.evicted + b.pairs.evicted
}

func behave(name, unit, doc string, value func(*behaviourView) float64) Feature {
	return Feature{Name: name, Group: "behaviour", Unit: unit, Doc: doc, Source: "Kitsune, Slips",
		needs: &behaviourKind, value: value}
}

var behaviourGroup = func() (all []Feature) {
	for side, role := range []struct{ prefix, of, peers, but string }{
		{"src_", "the source", "destinations", "; those whose client is not sure do not count"}, {"victim_", "the destination", "sources", ""},
	} {
		view := func(v *behaviourView) *hostView {
			if side == 0 {
				return &v.source
			}
			return &v.victim
		}
		one := func(name, unit, doc string, value func(*hostView) float64) {
			all = append(all, behave(role.prefix+name, unit, doc, func(v *behaviourView) float64 { return value(view(v)) }))
		}
		for k, span := range []string{"60s", "600s"} {
			within := "in the last " + []string{"30 to 60 s", "5 to 10 min"}[k]
			one("peers_"+span, "count", "distinct "+role.peers+" of "+role.of+"'s connections "+within+" (HyperLogLog, standard error 13 %)",
				func(h *hostView) float64 { return h.peers[k] })
			one("ports_"+span, "count", "distinct responder ports (ICMP: types) of "+role.of+"'s connections "+within+", likewise",
				func(h *hostView) float64 { return h.ports[k] })
			one("connections_"+span, "count", role.of+"'s connections, each counted with its first row and weighted by e^(-age/"+span+")"+role.but,
				func(h *hostView) float64 { return h.connections[k] })
			one("failed_share_"+span, "share", "share of connections_"+span+" that was refused or not answered, UDP and pings within 1 s",
				func(h *hostView) float64 { return h.failedShare[k] })
		}
		one("new_peer_rate", "1/s", role.peers+" of "+role.of+"'s connections that it had none with in the last 5 to 10 min, weighted by e^(-age/60s) (estimate), / 60 s",
			func(h *hostView) float64 { return h.newPeers })
	}
	return append(all,
		behave("periodicity", "0..1", "how regular the starts of this source's connections to this destination, port and protocol are: 1 - (mean deviation of the gap between starts) / repeat_gap; 1 for a clock, about .2 for Poisson traffic; 0 before the fifth connection and below a gap of 1 s", func(v *behaviourView) float64 { return v.periodicity }),
		behave("repeat_gap", "s", "mean gap between these starts, of the first four gaps, then exponentially weighted by 1/4; 0 for one connection", func(v *behaviourView) float64 { return v.gap }),
		behave("repeats", "count", "connections of this source to this destination, port and protocol so far", func(v *behaviourView) float64 { return v.repeats }),
	)
}()
