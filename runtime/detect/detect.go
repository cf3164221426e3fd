// Package detect is the one loop of Picket: packets become rows of features,
// rows get scores, anomalous rows join into incidents, and incidents publish
// events. All of it runs on the packet clock, in the caller's goroutine: the same
// packets give the same events.
package detect

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/picket-ids/picket/capture"
	"github.com/picket-ids/picket/features"
)

// A Scorer scores rows of features: rows is [n][columns] in row-major order,
// scores [n], from 0 to 1. A row's score must not depend on the rows beside it.
type Scorer interface {
	Score(rows, scores []float32) error
}

// A Model is a Scorer and what the detector must know of it.
type Model struct {
	Scorer
	Name, Version, SHA256 string
	Row                   string    // what it scores: "connection"
	Features              []string  // its columns
	Typical               []float32 // the training normals' median, by column
	Threshold             float64   // at and above it a row is anomalous
}

// Config says what a Detector watches with and whom it tells.
type Config struct {
	Gateway        string // the observer's name in events
	Version        string // of Picket
	Models         []Model
	MaxConnections int // see features.Config
	// Emit receives each event, in order. It must not wait for long.
	Emit func(*Event)
}

// Stats counts what a Detector did.
type Stats struct {
	Frames    uint64                      // read
	Outcomes  [capture.NumOutcomes]uint64 // what became of them
	Octets    uint64                      // of the frames on the wire
	First     int64                       // ns, time of the first and the last frame
	Last      int64
	Links     []capture.LinkType   // unsupported ones met, at most 8
	Tracker   features.Stats       // connections
	Packets   features.PacketStats // rows of packets
	Anomalous uint64               // rows
	Incidents uint64
	Judged    uint64 // rows that were scored
	Early     uint64 // incidents ended before their time, some unpublished, because too many were open
}

// Detector is one such loop. It is not safe for concurrent use.
type Detector struct {
	cfg       Config
	models    []*scorer
	decoder   capture.Decoder
	tracker   *features.Tracker       // nil without a model of connections
	packets   *features.PacketTracker // nil without a model of packets
	lanes     []*lane
	batch     batch
	incidents incidents
	sequence  uint64
	last      int64 // ns, the time of the row before
	fresh     bool  // the next frame is the first of a source
	stats     Stats
	probe     []float32 // rows of explain
	err       error
}

// scorer is a loaded model and where its columns lie in the rows of its kind.
type scorer struct {
	Model
	index   int // among all models
	columns []int
	groups  [][]int   // columns explained together
	rows    []float32 // of the batch, gathered
	scores  []float32
}

func (m *scorer) id() ModelID { return ModelID{m.Name, m.Version, m.SHA256} }

// gather appends the model's columns of a row.
func (m *scorer) gather(rows *[]float32, values []float32) {
	for _, c := range m.columns {
		*rows = append(*rows, values[c])
	}
}

// New returns a Detector, or an error that names the column which a model wants
// and this build does not compute.
func New(cfg Config) (*Detector, error) {
	if len(cfg.Models) == 0 {
		return nil, errors.New("no model: nothing can be detected")
	}
	d := &Detector{cfg: cfg}
	d.incidents = incidents{bySource: map[capture.Addr]*incident{}, byVictim: map[capture.Addr]*incident{},
		next: never, models: len(cfg.Models)}
	kinds := map[features.RowKind][]*scorer{}
	for i, m := range cfg.Models {
		kind := features.RowKind(m.Row)
		if kind != features.ConnectionRow && kind != features.PacketRow {
			return nil, fmt.Errorf("model %s scores rows of kind %q, this build makes those of a connection or a packet", m.Name, m.Row)
		}
		if err := features.Check(kind, m.Features); err != nil {
			return nil, fmt.Errorf("model %s: %w", m.Name, err)
		}
		s := &scorer{Model: m, index: i, groups: groups(m.Features), scores: make([]float32, maxBatch)}
		d.models = append(d.models, s)
		kinds[kind] = append(kinds[kind], s)
	}
	var err error
	if models := kinds[features.ConnectionRow]; models != nil {
		columns, emit := d.lane(models)
		d.tracker, err = features.NewTracker(features.Config{Columns: columns, MaxConnections: cfg.MaxConnections}, emit)
		if err != nil {
			return nil, err
		}
	}
	if models := kinds[features.PacketRow]; models != nil {
		columns, emit := d.lane(models)
		d.packets, err = features.NewPacketTracker(features.PacketConfig{Columns: columns}, emit)
		if err != nil {
			return nil, err
		}
	}
	d.batch = newBatch(d.lanes...)
	return d, nil
}

// lane makes the lane of models of one kind. It returns the columns that its rows
// must have, and what takes them.
func (d *Detector) lane(models []*scorer) (columns []string, emit func(*features.Row)) {
	for _, m := range models {
		for _, f := range m.Features {
			c := slices.Index(columns, f)
			if c < 0 {
				c = len(columns)
				columns = append(columns, f)
			}
			m.columns = append(m.columns, c)
		}
	}
	l := newLane(len(columns), models)
	d.lanes = append(d.lanes, l)
	return columns, func(r *features.Row) { d.add(l, r) }
}

// groups returns the columns by feature: one each, or all the one-hot columns.
func groups(names []string) (all [][]int) {
	index := map[string]int{}
	for c, name := range names {
		base, _, oneHot := strings.Cut(name, "=")
		if g, ok := index[base]; ok && oneHot {
			all[g] = append(all[g], c)
			continue
		}
		if oneHot {
			index[base] = len(all)
		}
		all = append(all, []int{c})
	}
	return all
}

// Run takes all frames of src. It ends with the source, with its error, or with
// that of the context; Finish must follow in any case.
func (d *Detector) Run(ctx context.Context, src capture.Source) error {
	d.fresh = true
	return capture.Read(ctx, src, &d.decoder, d.take)
}

func (d *Detector) take(f *capture.Frame, p *capture.Packet, o capture.Outcome) error {
	s := &d.stats
	if s.Frames == 0 {
		s.First, s.Last = f.Time, f.Time
	}
	if d.fresh && f.Time < s.Last { // a source that began before the one before ended
		d.flush()
	}
	d.fresh = false
	s.Frames++
	s.Octets += uint64(f.WireLen)
	s.First, s.Last = min(s.First, f.Time), max(s.Last, f.Time)
	switch {
	case o.HasPacket():
		if d.tracker != nil {
			d.tracker.Add(p)
		}
		if d.packets != nil {
			d.packets.Add(p)
		}
	case o == capture.UnsupportedLink && len(s.Links) < 8 && !slices.Contains(s.Links, f.Link):
		s.Links = append(s.Links, f.Link)
	}
	return d.err
}

// Finish makes the rows of the connections still open, scores what is left and
// ends all incidents. It returns the first error of a model.
func (d *Detector) Finish() error {
	d.flush()
	return d.err
}

// flush ends all connections and incidents: what follows begins a new time.
func (d *Detector) flush() {
	if d.tracker != nil {
		d.tracker.Flush()
	}
	if d.packets != nil {
		d.packets.Flush()
	}
	d.score()
	d.advance(never - 1)
	d.last = 0
}

// maxStepBack is how far the time of rows may run back, ns.
const maxStepBack = 60 * second

// Stats returns the counters so far.
func (d *Detector) Stats() Stats {
	s := d.stats
	s.Outcomes = d.decoder.Counts
	if d.tracker != nil {
		s.Tracker = d.tracker.Stats()
	}
	if d.packets != nil {
		s.Packets = d.packets.Stats()
	}
	s.Incidents, s.Early = d.incidents.total, d.incidents.early
	return s
}

func (d *Detector) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// add takes a row into the batch. The last row of a connection that has been
// silent since the one before says nothing new.
func (d *Detector) add(l *lane, r *features.Row) {
	if r.Serial > 0 && r.Packets == [2]uint64{} {
		return
	}
	d.batch.add(l, r)
	if d.batch.full() {
		d.score()
	}
}

// score scores the batch and judges its rows in their order.
func (d *Detector) score() {
	b := &d.batch
	defer b.clear(d.lanes)
	if err := b.score(d.lanes); err != nil {
		d.fail(err)
		return
	}
	for k := range b.n {
		r, scores, models := &b.rows[k], b.scores(k), b.lanes[k].models
		if r.Time < d.last-maxStepBack {
			d.advance(never - 1) // the clock was set back: what was open is over
		}
		d.last = r.Time
		d.stats.Judged++
		d.advance(r.Time)
		best := -1
		for m, s := range scores {
			if s >= models[m].Threshold && (best < 0 || s > scores[best]) {
				best = m
			}
		}
		if best < 0 {
			continue
		}
		d.stats.Anomalous++
		d.makeRoom(r)
		i := d.incidents.join(r)
		i.add(r, models, scores, best)
		d.incidents.next = min(d.incidents.next, d.incidents.due(i))
	}
}

// round rounds v to the given number of decimals.
func round(v float64, decimals int) float64 {
	p := math.Pow10(decimals)
	return math.Round(v*p) / p
}
