package features

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/picket-ids/picket/capture"
)

// Messages that are counted per source.
const (
	gtpMessages = iota
	pfcpRequests
	sipRequests
	diameterRequests
	numMessages
)

// signallingRates are the figures of one source over the last 5 s.
type signallingRates struct {
	perSecond [numMessages]float32
	teids     uint32
}

// rates counts the messages of the connections that signalling recognises, which shows it
// their packets: most are none of theirs, so it is no follower.
type rates struct {
	columnsOf[signallingRates]
	peaks   perConn[signallingRates]
	sources *signallingTable
	current signallingRates // of the row being made
}

var ratesKind = groupKind{func(open opener) group {
	g := newRates()
	open(&signallingKind).(*signalling).rates = g
	return g
}}

func newRates() *rates { return &rates{sources: newSignallingTable(maxSignallingSources)} }

// add takes a packet of connection i, whose protocol s names.
func (g *rates) add(i int32, s *signallingState, p *capture.Packet, side int, now int64, fresh int) {
	var peak *signallingRates // of the source; none of the other side is kept
	if side == originator {
		peak = g.peaks.at(i)
	}
	if p.Tunnel == capture.TunnelGTPU && p.TunnelID != 0 { // with or without payload
		g.sources.addTEID(&p.OuterSrc, &p.OuterDst, p.TunnelID, now, peak)
	}
	if len(p.Payload) == 0 || p.FragmentOffset > 0 || fresh == 0 {
		return
	}
	switch s.protocol {
	case gtpU, gtpC, gtpPrime:
		if s.tunnelled {
			return
		}
		n, teid := gtpCount(p)
		if teid != 0 {
			g.sources.addTEID(&p.Src, &p.Dst, teid, now, peak)
		}
		if n > 0 {
			g.sources.add(&p.Src, gtpMessages, n, now, peak)
		}
	case pfcp:
		if n := pfcpCount(p); n > 0 {
			g.sources.add(&p.Src, pfcpRequests, n, now, peak)
		}
	case sip:
		if n := sipCount(p); n > 0 {
			g.sources.add(&p.Src, sipRequests, n, now, peak)
		}
	case diameter:
		if n := diameterCount(p); n > 0 {
			g.sources.add(&p.Src, diameterRequests, n, now, peak)
		}
	}
}

// row takes the peaks, which begin anew.
func (g *rates) row(i int32, _ *conn, _ *sample, values []float32) {
	peak := g.peaks.at(i)
	g.current, *peak = *peak, signallingRates{}
	g.set(values, &g.current)
}

func (g *rates) reset() { g.sources.reset() }

func (g *rates) forgotten() uint64 { return g.sources.sources.evicted }

const (
	halfWindow = 5 * second / 2
	// maxSignallingSources bounds the sources whose messages are counted at a
	// time; full, they take 1.5 MB.
	maxSignallingSources = 4096
)

// signallingSource counts the messages of one address in half windows of the
// packet clock.
type signallingSource struct {
	half   int64                  // number of the half window that counts[0] is of
	counts [3][numMessages]uint32 // of it, the one before, and the one before that
	teids  distinct
}

// signallingTable holds the sources of signalling by address.
type signallingTable struct {
	sources *lru[capture.Addr, signallingSource]
}

func newSignallingTable(limit int) *signallingTable {
	return &signallingTable{newLRU[capture.Addr, signallingSource](limit)}
}

// add counts n messages of source a and raises peak, if not nil, to its rate.
func (t *signallingTable) add(a *capture.Addr, kind int, n uint32, now int64, peak *signallingRates) {
	s := t.source(a, now)
	s.counts[0][kind] += n
	if peak != nil {
		peak.perSecond[kind] = max(peak.perSecond[kind], s.rate(kind, now))
	}
}

// addTEID counts the tunnel endpoint teid of dst, which a addressed.
func (t *signallingTable) addTEID(a, dst *capture.Addr, teid uint32, now int64, peak *signallingRates) {
	s := t.source(a, now)
	le := binary.LittleEndian
	// No random seed: the same traffic gives the same counts.
	s.teids.add(avalanche(avalanche(le.Uint64(dst[:8])^le.Uint64(dst[8:])) + uint64(teid)))
	if peak != nil {
		peak.teids = max(peak.teids, s.teids.count())
	}
}

// source returns the counts of a, moved on to now.
func (t *signallingTable) source(a *capture.Addr, now int64) *signallingSource {
	s, isNew := t.sources.use(a, hashAddr(a))
	if half := halfOf(now); isNew {
		s.half = half
	} else if half != s.half {
		s.turn(half)
	}
	return s
}

func halfOf(now int64) int64 {
	half := now / halfWindow
	if now < half*halfWindow {
		half--
	}
	return half
}

// turn moves s on to the given half window.
func (s *signallingSource) turn(half int64) {
	switch half - s.half {
	case 1:
		s.counts = [3][numMessages]uint32{1: s.counts[0], 2: s.counts[1]}
	case 2:
		s.counts = [3][numMessages]uint32{2: s.counts[0]}
	default:
		s.counts = [3][numMessages]uint32{}
	}
	s.teids.turn(half-s.half == 1)
	s.half = half
}

// rate returns messages per second over the 5 s to now. Of the oldest half window
// the part that lies in them counts, as if its messages came evenly.
func (s *signallingSource) rate(kind int, now int64) float32 {
	gone := float32(now-s.half*halfWindow) / float32(halfWindow)
	return (float32(s.counts[0][kind]+s.counts[1][kind]) + float32(s.counts[2][kind])*(1-gone)) / 5
}

// reset forgets all sources, but not how many it had no room for.
func (t *signallingTable) reset() { t.sources.reset() }

// distinct estimates the number of different values in this half window and the
// one before by linear counting (Whang et al. 1990) with 1024 bits: standard
// error below 5 % up to 3,000, no more than 7,098. Unlike a Sketch, it is read at
// every packet.
type distinct struct {
	current [distinctBits / 64]uint64
	union   [distinctBits / 64]uint64 // with the half window before
	ones    uint16                    // in union
}

const distinctBits = 1024

func (d *distinct) add(hash uint64) {
	w, bit := hash%distinctBits/64, uint64(1)<<(hash%64)
	d.current[w] |= bit
	if d.union[w]&bit == 0 {
		d.union[w] |= bit
		d.ones++
	}
}

// turn begins the next half window; adjacent tells whether none was left out.
func (d *distinct) turn(adjacent bool) {
	if !adjacent {
		d.current = [distinctBits / 64]uint64{}
	}
	d.union, d.current, d.ones = d.current, [distinctBits / 64]uint64{}, 0
	for _, w := range d.union {
		d.ones += uint16(bits.OnesCount64(w))
	}
}

func (d *distinct) count() uint32 { return uint32(linearCount[d.ones]) }

// linearCount is the most likely number of values that set so many bits.
var linearCount = func() (n [distinctBits + 1]uint16) {
	for ones := range n {
		zeros := max(float64(distinctBits-ones), 1)
		n[ones] = uint16(math.Round(distinctBits * math.Log(distinctBits/zeros)))
	}
	return n
}()
