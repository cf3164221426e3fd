package features

import (
	"encoding/binary"
	"math"

	"github.com/picket-ids/picket/capture"
)

// The windows of KDD'99 are bounded in number, whatever else the papers say;
// NSL-KDD's rows tell by how much. Of 148,517, none has more than 511
// connections in the union of count and srv_count (2,718 come within 2 %), none
// more than 255 in that of dst_host_count and dst_host_srv_count (115,060 come
// within 2 %); and where k/255 and k/256 differ in the second decimal, the largest
// dst_host_same_srv_rate of 6,162 rows is k/255.
const (
	timeWindowSpan = 2e9 // ns: features 23-31
	timeWindowMax  = 511 // connections
	hostWindowMax  = 255 // connections: features 32-41
)

// kddTime and kddHost are the windows of timeGroup and hostGroup.
var (
	kddTime = groupKind{func(opener) group { return newWindow(timeWindowSpan, timeWindowMax, false) }}
	kddHost = groupKind{func(opener) group { return newWindow(0, hostWindowMax, true) }}
)

// visit is what a window keeps of a connection.
type visit struct {
	time             int64 // when it ended, ns
	host, serv, pair int32 // indices into the window's tables
	srcPort          int32 // likewise, -1 when not kept
	err              errorKind
}

type errorKind uint8

const (
	noError errorKind = iota
	sError            // S0 S1 S2 S3 SH
	rError            // REJ RSTO RSTR RSTOS0
)

// tally counts the connections of one host or one service in a window.
type tally struct {
	n, sErr, rErr int32
	distinct      int32 // services of the host, or hosts of the service
}

func (t *tally) add(e errorKind, by int32) {
	t.n += by
	switch e {
	case sError:
		t.sErr += by
	case rError:
		t.rErr += by
	}
}

// window counts the connections that ended last, by host and by service, in
// constant time per connection.
type window struct {
	columnsOf[windowStats]
	neverForgets
	span    int64 // ns; 0 when only the number bounds it
	max     int
	ring    []visit // a power of two long
	head    int     // oldest
	n       int
	hosts   *table[capture.Addr, tally]
	servs   *table[uint64, tally] // by protocol and responder port
	pairs   *table[uint64, int32] // by host and service index
	ports   *table[uint64, int32] // by host index and source port; nil when not kept
	current windowStats           // of the row being made
}

func newWindow(span int64, limit int, ports bool) *window {
	size := 1
	for size < limit {
		size *= 2
	}
	w := &window{
		span:  span,
		ring:  make([]visit, size),
		max:   limit,
		hosts: newTable[capture.Addr, tally](limit),
		servs: newTable[uint64, tally](limit),
		pairs: newTable[uint64, int32](limit),
	}
	if ports {
		w.ports = newTable[uint64, int32](limit)
	}
	return w
}

// windowStats are the counts of one connection's window, itself included.
type windowStats struct {
	host, serv  tally
	sameServ    int32 // connections to the same host and service
	sameSrcPort int32 // connections to the same host from the same source port
	duration    float64
}

func (w *window) row(_ int32, c *conn, s *sample, values []float32) {
	w.current = w.measure(c, s.time, s.err, s.enters)
	w.current.duration = s.duration
	w.set(values, &w.current)
}

// measure returns the figures of the window that ends with c, at the time in
// nanoseconds, which must not decrease. The window keeps c when it has ended.
func (w *window) measure(c *conn, time int64, err errorKind, ended bool) (s windowStats) {
	for w.n > 0 && (w.n == w.max || w.span > 0 && w.ring[w.head].time < time-w.span) {
		w.count(&w.ring[w.head], -1)
		w.head = (w.head + 1) & (len(w.ring) - 1)
		w.n--
	}
	v := &w.ring[(w.head+w.n)&(len(w.ring)-1)]
	w.enter(v, c, time, err)
	s.host, s.serv, s.sameServ = *w.hosts.at(v.host), *w.servs.at(v.serv), *w.pairs.at(v.pair)
	if w.ports != nil {
		s.sameSrcPort = *w.ports.at(v.srcPort)
	}
	if ended {
		w.n++
	} else {
		w.count(v, -1)
	}
	return s
}

// enter finds or makes the counters of c and counts it.
func (w *window) enter(v *visit, c *conn, time int64, err errorKind) {
	v.time, v.err = time, err
	host := c.addr(responder)
	v.host, _ = w.hosts.put(&host, hashAddr(&host))
	serv := uint64(c.key.proto)<<16 | uint64(c.servicePort())
	v.serv, _ = w.servs.put(&serv, hashUint64(serv))
	pair := uint64(v.host)<<32 | uint64(v.serv)
	v.pair, _ = w.pairs.put(&pair, hashUint64(pair))
	if w.ports != nil {
		port := uint64(v.host)<<32 | uint64(c.sourcePort())
		v.srcPort, _ = w.ports.put(&port, hashUint64(port))
	}
	w.count(v, 1)
}

// count adds by, 1 or -1, to the counters of v and frees those that reach 0.
func (w *window) count(v *visit, by int32) {
	host, serv, pair := w.hosts.at(v.host), w.servs.at(v.serv), w.pairs.at(v.pair)
	host.add(v.err, by)
	serv.add(v.err, by)
	*pair += by
	if *pair == 0 && by < 0 || *pair == 1 && by > 0 {
		host.distinct += by
		serv.distinct += by
	}
	if *pair == 0 {
		w.pairs.remove(v.pair)
	}
	if host.n == 0 {
		w.hosts.remove(v.host)
	}
	if serv.n == 0 {
		w.servs.remove(v.serv)
	}
	if w.ports != nil {
		port := w.ports.at(v.srcPort)
		if *port += by; *port == 0 {
			w.ports.remove(v.srcPort)
		}
	}
}

func (w *window) reset() {
	for ; w.n > 0; w.n-- {
		w.count(&w.ring[w.head], -1)
		w.head = (w.head + 1) & (len(w.ring) - 1)
	}
}

// rate is the share part of n with the precision of NSL-KDD: a float32 printed
// with two decimals, ties to even (1/8 is .12, 3/40 is .08, 1/200 is .00). All
// 440,187 rates of rows with count below 511 are such fractions of it.
func rate(part, n int32) float64 {
	if n == 0 {
		return 0
	}
	return math.RoundToEven(float64(float32(part)/float32(n))*100) / 100
}

// distinctRate is the share of distinct services (or hosts) among n, 0 when
// there is only one. The current one is counted too: in all 1,689 rows with
// count 2 and same_srv_rate .50, diff_srv_rate is 1.00.
func distinctRate(distinct, n int32) float64 {
	if distinct < 2 {
		return 0
	}
	return rate(distinct, n)
}

func hashAddr(a *capture.Addr) uint64 {
	return mix(binary.LittleEndian.Uint64(a[:8])^0x9e3779b97f4a7c15, binary.LittleEndian.Uint64(a[8:]))
}
