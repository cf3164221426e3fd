// Package features joins packets into connections and computes named features
// of them: KDD'99's connection features and those of telecom traffic. The
// registry is the dictionary of all names; a Tracker computes the columns it is
// asked for.
package features

import (
	"fmt"
	"math"
	"strings"
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
type need uint8

const (
	needTime    need = 1 << iota // the time window
	needHost                     // the host window
	needPayload                  // a look into the payload
)

// sample is what the features of one row are computed from.
type sample struct {
	conn     *conn
	flag     Flag
	duration float64 // s, whole
	src, dst float64 // octets of payload
	time     windowStats
	host     windowStats
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

var dictionary = concat(basicGroup, timeGroup, hostGroup, telecomGroup)

func concat(groups ...[]Feature) (all []Feature) {
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

var byName = func() map[string]*Feature {
	m := make(map[string]*Feature, len(dictionary))
	for i := range dictionary {
		m[dictionary[i].Name] = &dictionary[i]
	}
	return m
}()

// column is one compiled column of a row.
type column struct {
	value func(*sample) float64
	needs need
}

// compile finds the column of the given name.
func compile(name string) (column, error) {
	base, value, oneHot := strings.Cut(name, "=")
	f := byName[base]
	if f == nil {
		return column{}, unknown(name)
	}
	if !oneHot {
		return column{f.value, f.needs}, nil
	}
	for code, v := range f.OneHot {
		if v == value {
			code, number := float64(code), f.value
			return column{func(s *sample) float64 {
				if number(s) == code {
					return 1
				}
				return 0
			}, f.needs}, nil
		}
	}
	return column{}, unknown(name)
}

// ValueName returns the name that a categorical feature gives to v, "" when it
// gives none.
func ValueName(feature string, v float64) string {
	if f := byName[feature]; f != nil && v >= 0 && v < float64(len(f.OneHot)) && v == math.Trunc(v) {
		return f.OneHot[int(v)]
	}
	return ""
}

func unknown(name string) error {
	return fmt.Errorf("%q is no feature that this build computes (see picket features)", name)
}

// Check reports whether every name is a column that a row can have, and names
// the first that is not.
func Check(columns []string) error {
	for i, name := range columns {
		if _, err := compile(name); err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
	}
	return nil
}

// rower fills rows.
type rower struct {
	columns    []column
	needs      need
	time, host *window
	sample     sample
	out        Row
}

func newRower(columns []string) (r rower, err error) {
	if err := Check(columns); err != nil {
		return r, err
	}
	for _, name := range columns {
		c, _ := compile(name)
		r.columns = append(r.columns, c)
		r.needs |= c.needs
	}
	r.out.Values = make([]float32, len(columns))
	if r.needs&needTime != 0 {
		r.time = newWindow(timeWindowSpan, timeWindowMax, false)
	}
	if r.needs&needHost != 0 {
		r.host = newWindow(0, hostWindowMax, true)
	}
	return r, nil
}

// row makes the row of c at the given time. It is valid until the next call.
func (r *rower) row(c *conn, time int64, ended bool) *Row {
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
	if r.time != nil {
		s.time = r.time.measure(c, time, err, ended)
	}
	if r.host != nil {
		s.host = r.host.measure(c, time, err, ended)
	}
	o := &r.out
	o.Time, o.Start, o.End, o.Ended = time, c.start, c.last, ended
	o.Src, o.Dst, o.Proto, o.Flag = c.addr(originator), c.addr(responder), c.key.proto, s.flag
	o.SrcPort, o.DstPort = 0, 0
	if !c.isICMP() {
		o.SrcPort, o.DstPort = c.port(originator), c.port(responder)
	}
	o.Refused = s.flag == S0 || s.flag == REJ || s.flag == RSTOS0 || s.flag == SH ||
		c.icmpErrors > 0 && c.dir[responder].payload == 0
	for side := range c.dir {
		d := &c.dir[side]
		o.Packets[side], o.Octets[side] = uint64(d.packets), d.wire
		d.packets, d.wire = 0, 0
	}
	o.Serial = int(c.rows)
	c.rows++
	for i := range r.columns {
		o.Values[i] = float32(r.columns[i].value(s))
	}
	return o
}

func (r *rower) reset() {
	if r.time != nil {
		r.time.reset()
	}
	if r.host != nil {
		r.host.reset()
	}
}
