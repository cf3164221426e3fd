// Package features turns packets into rows of named features. A kind of row says what
// a row is of: a connection, with KDD'99's features and those of telecom traffic, or a
// packet. The registry is the dictionary of all names; the Extractor of a kind computes
// the columns it is asked for.
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

// An Extractor makes the rows of one kind from packets. It belongs to one goroutine,
// and knows no time but that of the packets: the same packets give the same rows. It
// hands each row to the emit function that it was made with, within Add, Tick or Flush;
// the row is valid until emit returns.
type Extractor interface {
	// Add takes one packet, after the rows that were due before it. The Extractor
	// keeps nothing of the packet.
	Add(p *capture.Packet)
	// Tick moves the packet clock to now, in nanoseconds since the Unix epoch, and
	// makes the rows that have come due. A live source calls it while the wire is quiet.
	Tick(now int64)
	// Flush makes all rows that are still to come and forgets the past: what follows
	// begins a new time.
	Flush()
	// Stats returns the counters so far.
	Stats() Stats
}

// kinds lists all kinds of rows, in the order of the dictionary. Each is declared in
// the file of its Extractor.
var kinds = []*rowKind{&connectionKind, &packetKind, &hostKind}

// rowKind is a kind of row.
type rowKind struct {
	name   RowKind
	groups [][]Feature // the features of its rows
	// identity names what says which thing a row is of, beside its features.
	identity []string
	// open returns an Extractor of columns, which are valid.
	open func(cfg Config, columns []column, emit func(*Row)) (Extractor, error)
}

// Kinds returns the names of all kinds of rows, the usual one first.
func Kinds() (names []RowKind) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// Identity returns the names of what says where a row of a kind is from and what it is of.
func Identity(kind RowKind) []string {
	k, err := findKind(kind)
	if err != nil {
		return nil
	}
	return k.identity
}

// flowIdentity is that of rows with two ends.
var flowIdentity = []string{"capture", "start", "end", "source", "source_port", "destination", "destination_port", "protocol", "community_id", "ended"}

// findKind returns the kind of that name, or an error that names those there are.
func findKind(name RowKind) (*rowKind, error) {
	known := make([]string, len(kinds))
	for i, k := range kinds {
		if k.name == name {
			return k, nil
		}
		known[i] = string(k.name)
	}
	return nil, fmt.Errorf("this build makes no rows of a %.20q, only of a %s", name, strings.Join(known, " or "))
}

// NewExtractor returns an Extractor of rows of a kind, which hands each row to emit.
func NewExtractor(kind RowKind, cfg Config, emit func(*Row)) (Extractor, error) {
	k, err := findKind(kind)
	if err != nil {
		return nil, err
	}
	columns, err := k.compile(cfg.Columns)
	if err != nil {
		return nil, err
	}
	return k.open(cfg, columns, emit)
}

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

	// needs says what the Extractor must keep to compute the value. The kind of row
	// defines its type.
	needs any
	// value is a func(*V) float64, in which V is what the Extractor knows of the row.
	value any
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

var dictionary = func() (all []Feature) {
	for _, k := range kinds {
		for _, f := range slices.Concat(k.groups...) {
			f.Row = k.name
			all = append(all, f)
		}
	}
	return all
}()

// byName holds the features of each kind of row. One that several have (protocol_type)
// gives its values the same names.
var byName = func() map[RowKind]map[string]*Feature {
	m := map[RowKind]map[string]*Feature{}
	for _, k := range kinds {
		m[k.name] = map[string]*Feature{}
	}
	for i := range dictionary {
		m[dictionary[i].Row][dictionary[i].Name] = &dictionary[i]
	}
	return m
}()

// A column is one value of a row: that of a feature, or one of its one-hot columns.
type column struct {
	feature *Feature
	code    int // of the one-hot column, -1 for the feature itself
	at      int // its place in the row
}

// column finds the column of the given name.
func (k *rowKind) column(name string) (column, error) {
	base, value, oneHot := strings.Cut(name, "=")
	f := byName[k.name][base]
	switch {
	case f == nil:
	case !oneHot:
		return column{feature: f, code: -1}, nil
	default:
		if code := slices.Index(f.OneHot, value); code >= 0 {
			return column{feature: f, code: code}, nil
		}
	}
	return column{}, fmt.Errorf("%q is no feature of a %s that this build computes (see picket features)", name, k.name)
}

// compile finds all columns, each of which must be there once, or names the first that
// is not.
func (k *rowKind) compile(names []string) ([]column, error) {
	columns := make([]column, len(names))
	for i, name := range names {
		var err error
		if columns[i], err = k.column(name); err != nil {
			return nil, fmt.Errorf("column %d: %w", i+1, err)
		}
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("column %d: %q is there twice", i+1, name)
		}
		columns[i].at = i
	}
	return columns, nil
}

// filler fills the columns of one feature, from a V.
type filler[V any] struct {
	value func(*V) float64
	at    int   // its own column, -1 when it is not asked for
	codes []int // column of each code's one-hot, -1 likewise; nil for none
}

// newFillers returns what fills columns whose features are computed from a V.
func newFillers[V any](columns []column) (fs []filler[V]) {
	index := map[string]int{}
	for _, c := range columns {
		value := c.feature.value.(func(*V) float64)
		if c.code < 0 {
			fs = append(fs, filler[V]{value: value, at: c.at})
			continue
		}
		k, ok := index[c.feature.Name]
		if !ok {
			k = len(fs)
			index[c.feature.Name] = k
			fs = append(fs, filler[V]{value: value, at: -1, codes: slices.Repeat([]int{-1}, len(c.feature.OneHot))})
		}
		fs[k].codes[c.code] = c.at
	}
	return fs
}

// fill begins a row: it fills the columns of fs, and the others are 0.
func fill[V any](values []float32, fs []filler[V], from *V) {
	clear(values)
	set(values, fs, from)
}

// set fills columns of a row that fill has begun: of one-hot columns only one is not 0.
func set[V any](values []float32, fs []filler[V], from *V) {
	for i := range fs {
		f := &fs[i]
		v := f.value(from)
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
	for _, k := range kinds {
		if f := byName[k.name][feature]; f != nil && v >= 0 && v < float64(len(f.OneHot)) && v == math.Trunc(v) {
			return f.OneHot[int(v)]
		}
	}
	return ""
}

// Check reports whether there are rows of the kind and every name is a column that they
// can have, once, and names the first that is not.
func Check(kind RowKind, columns []string) error {
	k, err := findKind(kind)
	if err == nil {
		_, err = k.compile(columns)
	}
	return err
}
