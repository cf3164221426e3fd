// Package features joins packets into connections and computes named features
// of them, KDD'99's connection features and those of telecom traffic, and features
// of the packets themselves. The registry is the dictionary of all names; a Tracker
// and a PacketTracker compute the columns they are asked for.
package features

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/picket-ids/picket/capture"
)

// A RowKind says what a row is of.
type RowKind string

// ConnectionRow is a row of a connection.
const ConnectionRow RowKind = "connection"

// A Feature is one name of the dictionary.
type Feature struct {
	Name   string  `json:"name"`
	Group  string  `json:"group"`
	Row    RowKind `json:"row"`
	Unit   string  `json:"unit"`
	Doc    string  `json:"doc"`
	Source string  `json:"source"`
	// OneHot lists the values v for which there is a column "name=v", 1 for
	// the rows that have the value and 0 for the others.
	OneHot []string `json:"one_hot,omitempty"`

	needs need
	value func(*sample) float64
}

// need is what a feature's value is computed from besides its connection.
type need uint16

const (
	needTime            need = 1 << iota // the time window
	needHost                             // the host window
	needSignalling                       // a look into the payload for mobile core protocols
	needSignallingRates                  // the same, and their messages counted per source
	needFlow                             // flowState
	needSizes                            // the wavelet bands of the size series
	needBehaviour
	needDNS
	needContent // contentState
)

// sample is what the features of one row are computed from.
type sample struct {
	conn     *conn
	flag     Flag
	duration float64 // s, whole
	src, dst float64 // octets of payload
	time     windowStats
	host     windowStats

	flow      *flowState
	sizes     bands
	behaviour behaviourView
	dns       dnsView
	content   *contentState

	signalling      *signallingState
	signallingRates signallingRates

	packet packetSample // of a packet's row; what stands above is of a connection's
}

// Columns returns the names of all columns of a feature: its own, or those of
// its values too.
func (f *Feature) Columns() []string {
	names := []string{f.Name}
	for _, v := range f.OneHot {
		names = append(names, f.Name+"="+v)
	}
	return names
}

// All returns the dictionary in the order of its groups.
func All() []Feature { return append([]Feature(nil), dictionary...) }

var dictionary = concat(basicGroup, timeGroup, hostGroup, contentGroup, telecomGroup, signallingGroup, flowGroup, behaviourGroup, dnsFeatures, packetGroup)

func concat(groups ...[]Feature) (all []Feature) {
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

// byName holds the features of each kind of row. One that both have (protocol_type)
// gives its values the same names.
var byName = func() map[RowKind]map[string]*Feature {
	m := map[RowKind]map[string]*Feature{ConnectionRow: {}, PacketRow: {}}
	for i := range dictionary {
		m[dictionary[i].Row][dictionary[i].Name] = &dictionary[i]
	}
	return m
}()

// A column is one value of a row: that of a feature, or one of its one-hot columns.
type column struct {
	feature *Feature
	code    int // of the one-hot column, -1 for the feature itself
}

// compile finds the column of the given name in rows of a kind.
func compile(row RowKind, name string) (column, error) {
	base, value, oneHot := strings.Cut(name, "=")
	f := byName[row][base]
	switch {
	case f == nil:
	case !oneHot:
		return column{f, -1}, nil
	default:
		if code := slices.Index(f.OneHot, value); code >= 0 {
			return column{f, code}, nil
		}
	}
	return column{}, fmt.Errorf("%q is no feature of a %s that this build computes (see picket features)", name, row)
}

// filler fills the columns of one feature.
type filler struct {
	value func(*sample) float64
	at    int   // its own column, -1 when it is not asked for
	codes []int // column of each code's one-hot, -1 likewise; nil for none
}

// newFillers returns what fills the columns of a kind of row, and what that needs.
func newFillers(row RowKind, columns []string) (fs []filler, needs need, err error) {
	if err := Check(row, columns); err != nil {
		return nil, 0, err
	}
	index := map[string]int{}
	for at, name := range columns {
		c, _ := compile(row, name)
		needs |= c.feature.needs
		if c.code < 0 {
			fs = append(fs, filler{value: c.feature.value, at: at})
			continue
		}
		k, ok := index[c.feature.Name]
		if !ok {
			k = len(fs)
			index[c.feature.Name] = k
			fs = append(fs, filler{value: c.feature.value, at: -1, codes: slices.Repeat([]int{-1}, len(c.feature.OneHot))})
		}
		fs[k].codes[c.code] = at
	}
	return fs, needs, nil
}

// fill fills the columns of a row.
func fill(values []float32, fs []filler, s *sample) {
	clear(values) // one-hot columns are 0 but for one
	for i := range fs {
		f := &fs[i]
		v := f.value(s)
		if f.at >= 0 {
			values[f.at] = float32(v)
		} else if at := f.codes[int(v)]; at >= 0 {
			values[at] = 1
		}
	}
}

// ValueName returns the name that a categorical feature gives to v, "" when it
// gives none.
func ValueName(feature string, v float64) string {
	for _, row := range []RowKind{ConnectionRow, PacketRow} {
		if f := byName[row][feature]; f != nil && v >= 0 && v < float64(len(f.OneHot)) && v == math.Trunc(v) {
			return f.OneHot[int(v)]
		}
	}
	return ""
}

// Check reports whether every name is a column that rows of a kind can have, once,
// and names the first that is not.
func Check(row RowKind, columns []string) error {
	for i, name := range columns {
		if _, err := compile(row, name); err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
		if slices.Contains(columns[:i], name) {
			return fmt.Errorf("column %d: %q is there twice", i+1, name)
		}
	}
	return nil
}

// rower fills rows, and holds the state that the groups of its columns need; that
// of others is nil.
type rower struct {
	fillers    []filler
	needs      need
	time, host *window
	tunnels    perConn[tunnel] // of the connections that came by one
	flow       *flows
	sizes      *transform
	behaviour  *behaviour
	dns        *dns
	content    *perConn[contentState]
	signalling *signalling
	sample     sample
	out        Row
}

func newRower(columns []string) (r rower, err error) {
	if r.fillers, r.needs, err = newFillers(ConnectionRow, columns); err != nil {
		return r, err
	}
	r.out.Values = make([]float32, len(columns))
	if r.needs&needTime != 0 {
		r.time = newWindow(timeWindowSpan, timeWindowMax, false)
	}
	if r.needs&needHost != 0 {
		r.host = newWindow(0, hostWindowMax, true)
	}
	if r.needs&needFlow != 0 {
		r.flow = &flows{}
	}
	if r.needs&needSizes != 0 {
		r.sizes = &transform{}
	}
	if r.needs&needBehaviour != 0 {
		r.behaviour = newBehaviour()
	}
	if r.needs&needDNS != 0 {
		r.dns = newDNS()
	}
	if r.needs&needContent != 0 {
		r.content = &perConn[contentState]{}
	}
	r.signalling = newSignalling(r.needs)
	return r, nil
}

// begin makes room for what the groups keep of connection i.
func (r *rower) begin(i int32) {
	if r.flow != nil {
		r.flow.begin(i)
	}
	if r.dns != nil {
		r.dns.conns.begin(i)
	}
	if r.content != nil {
		r.content.begin(i)
	}
	if r.signalling != nil {
		r.signalling.begin(i)
	}
}

// packet shows the groups a packet of connection i, of whose payload fresh octets
// were not sent before.
func (r *rower) packet(i int32, c *conn, p *capture.Packet, side int, now int64, fresh int) {
	if r.signalling != nil {
		r.signalling.add(i, p, side, now, fresh == 0)
	}
	if r.flow != nil {
		r.flow.add(i, p, side, now)
	}
	if r.dns != nil && p.Proto == capture.ProtoUDP && c.port(responder) == portDNS {
		client := c.addr(originator)
		r.dns.add(p, i, &client, side, now)
	}
	if r.content != nil && p.Proto == capture.ProtoTCP && !p.Fragment {
		r.content.at(i).add(newPayload(p, fresh), side, c.port(responder))
	}
}

// row makes the row of c at the given time. It is valid until the next call.
func (r *rower) row(i int32, c *conn, time int64, ended bool) *Row {
	s := &r.sample
	s.conn = c
	s.flag = c.flag()
	s.duration = math.Trunc(float64(c.last-c.start) / 1e9)
	s.src, s.dst = float64(c.dir[originator].payload), float64(c.dir[responder].payload)
	if s.flag == S0 || s.flag == REJ || s.flag == SH {
		// Nobody took it: all but 4 of NSL-KDD's 36,864 S0 rows, and all REJ and SH
		// rows, have no bytes.
		s.src, s.dst = 0, 0
	}
	err := s.flag.errorKind()
	enters := !c.counted && (ended || c.looked != [2]bool{})
	c.counted = c.counted || enters
	if r.time != nil {
		s.time = r.time.measure(c, time, err, enters)
	}
	if r.host != nil {
		s.host = r.host.measure(c, time, err, enters)
	}
	o := &r.out
	o.Kind, o.Time, o.Start, o.End, o.Ended = ConnectionRow, time, c.start, c.last, ended
	o.Src, o.Dst, o.Proto, o.Flag = c.addr(originator), c.addr(responder), c.key.proto, s.flag
	o.SrcPort, o.DstPort, o.ICMPType, o.ICMPCode = 0, 0, c.icmpType, c.icmpCode
	if !c.isICMP() {
		o.SrcPort, o.DstPort = c.port(originator), c.port(responder)
	}
	o.Tunnel, o.TunnelID, o.OuterSrc, o.OuterDst = c.tunnel, 0, capture.Addr{}, capture.Addr{}
	if c.tunnel != capture.TunnelNone {
		w := r.tunnels.at(i)
		o.TunnelID, o.OuterSrc, o.OuterDst = w.id, w.src, w.dst
	}
	o.Refused = s.flag == S0 || s.flag == REJ || s.flag == RSTOS0 || s.flag == SH ||
		c.icmpErrors > 0 && c.dir[responder].payload == 0 && !c.dir[responder].sequenced
	for side := range c.dir {
		d := &c.dir[side]
		o.Packets[side], o.Octets[side] = uint64(d.packets), d.wire
		d.packets, d.wire = 0, 0
	}
	o.Connection, o.Serial = c.number, int(c.rows)
	c.rows++
	r.measure(i, c, time)
	fill(o.Values, r.fillers, s)
	return o
}

// measure takes the groups' figures of connection i into the sample.
func (r *rower) measure(i int32, c *conn, time int64) {
	s := &r.sample
	if r.flow != nil {
		s.flow = r.flow.at(i)
	}
	if r.sizes != nil {
		s.sizes = r.flow.bands(i, r.sizes)
	}
	if r.behaviour != nil {
		s.behaviour = r.behaviour.measure(c, time, r.out.Refused, r.out.Serial == 0)
	}
	if r.dns != nil {
		client := c.addr(originator)
		s.dns = r.dns.view(i, &client, time)
	}
	if r.content != nil {
		s.content = r.content.at(i)
	}
	if r.signalling != nil {
		r.signalling.measure(i, s)
	}
}

func (r *rower) reset() {
	if r.time != nil {
		r.time.reset()
	}
	if r.host != nil {
		r.host.reset()
	}
	if r.behaviour != nil {
		r.behaviour.reset()
	}
	if r.dns != nil {
		r.dns.reset()
	}
	if r.signalling != nil {
		r.signalling.reset()
	}
}
