// Package detect is the one loop of Picket: packets become rows of features,
// rows get scores, anomalous rows join into incidents, and incidents publish
// events. All of it runs on the packet clock, in the caller's goroutine: the same
// packets give the same events.
package detect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

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
	Row                   string    // what it scores: a features.RowKind
	Features              []string  // its columns
	Typical               []float32 // the training normals' median, by column
	Threshold             float64   // at and above it a row is anomalous
}

// Config says what a Detector watches with and whom it tells.
type Config struct {
	Gateway        string // the observer's name in events
	Version        string // of Picket
	Models         []Model
	Suppress       []Suppression
	MaxConnections int           // see features.Config
	Early          time.Duration // likewise
	StepBack       time.Duration // likewise; beyond it incidents end, too
	Home           features.Home // likewise
	// MaxWait is how long, on the packet clock, rows may wait for a batch to fill
	// and events for the row that shows they are due; 0: as long as it takes.
	// It changes when events come, not what they say.
	MaxWait time.Duration
	// Anonymizer changes the addresses in events; nil: they stay.
	Anonymizer Anonymizer
	// Incidents is a table that this Detector has in common with others, which see
	// other shares of the same traffic with the same models; nil: one of its own.
	Incidents *Incidents
	// Emit receives each event, in order. It must not wait for long. Detectors with
	// a common table call it one at a time.
	Emit func(*Event)
}

// An Anonymizer stands a pseudonym in for each address, and digests what
// identifiers are made of so that they do not tell it.
type Anonymizer interface {
	Addr(capture.Addr) capture.Addr
	Sum(data []byte) [32]byte
}

// Stats counts what a Detector did.
type Stats struct {
	Frames    uint64                      // read
	Outcomes  [capture.NumOutcomes]uint64 // what became of them
	Octets    uint64                      // of the frames on the wire
	First     int64                       // ns, time of the first and the last frame
	Last      int64
	Links     []capture.LinkType // unsupported ones met, at most 8
	Cut       uint64             // packets whose contents were captured in part
	Features  features.Stats     // of the extractors of all kinds of rows together
	Anomalous uint64             // rows
	Incidents uint64
	Unsure    uint64 // anomalous rows that accuse nobody, as nobody knows who began
	Judged    uint64 // rows that were scored
	Early     uint64 // incidents ended before their time, some unpublished, because too many were open
	// Suppressed counts anomalous rows that a Suppression hid, by its place in
	// Config.Suppress.
	Suppressed []uint64
	Mirrors    []capture.Mirror // the interfaces, and how they show their traffic
}

// Detector is one such loop. It is not safe for concurrent use.
type Detector struct {
	cfg        Config
	models     []*scorer
	decoder    capture.Decoder
	lanes      []*lane // one for each kind of row that models score
	batch      batch
	incidents  *Incidents
	worker     int // among the Detectors of incidents
	suppressed *suppressions
	last       int64 // ns, the time of the row before
	lastTick   int64 // ns, see Config.MaxWait
	fresh      bool  // the next frame is the first of a source
	stats      Stats
	probe      []float32 // rows of explain
	err        error
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
	cfg.StepBack = cmp.Or(cfg.StepBack, features.DefaultStepBack)
	d := &Detector{cfg: cfg, incidents: cfg.Incidents}
	if d.incidents == nil {
		d.incidents = NewIncidents()
	}
	if err := Swap([]*Detector{d}, [][]Model{cfg.Models}, cfg.Suppress); err != nil {
		return nil, err
	}
	d.incidents.mu.Lock()
	d.worker = d.incidents.users
	d.incidents.users++
	d.incidents.mu.Unlock()
	return d, nil
}

// Swap puts other models, those of each Detector, and suppressions in the place of
// those in use, or returns why it cannot and keeps them. Connections and incidents go
// on when the models need no column that is not computed yet; else all that is open is
// judged at once and time begins anew. The Detectors must be all that have their table
// in common, and between two frames.
func Swap(all []*Detector, models [][]Model, suppress []Suppression) error {
	next := make([]*swap, len(all))
	for k, d := range all {
		var err error
		if next[k], err = d.prepare(models[k], suppress); err != nil {
			return err
		}
	}
	// What waits is judged by the old models of all, before the table knows the new ones.
	for k, d := range all {
		if d.models == nil {
			continue
		}
		if next[k].anew {
			d.drain()
		} else {
			d.score()
		}
	}
	for k, d := range all {
		d.commit(next[k])
	}
	return nil
}

// swap is what a Detector is to have next.
type swap struct {
	lanes      []*lane
	scorers    []*scorer
	suppressed *suppressions
	anew       bool // rows will come from another source
}

func (d *Detector) prepare(models []Model, suppress []Suppression) (*swap, error) {
	if len(models) == 0 {
		return nil, errors.New("no model: nothing can be detected")
	}
	suppressed, err := newSuppressions(suppress, models)
	if err != nil {
		return nil, err
	}
	scorers := make([]*scorer, len(models))
	kinds := map[features.RowKind][]*scorer{}
	for i, m := range models {
		kind := features.RowKind(m.Row)
		if err := features.Check(kind, m.Features); err != nil {
			return nil, fmt.Errorf("model %s: %w", m.Name, err)
		}
		scorers[i] = &scorer{Model: m, index: i, groups: groups(m.Features), scores: make([]float32, maxBatch)}
		kinds[kind] = append(kinds[kind], scorers[i])
	}
	s := &swap{scorers: scorers, suppressed: suppressed}
	for _, kind := range features.Kinds() {
		if kinds[kind] == nil {
			continue
		}
		l := d.lane(kind).with(kind, kinds[kind])
		if l.rows == nil {
			if l.rows, err = d.newSource(l); err != nil {
				return nil, err
			}
		}
		s.lanes = append(s.lanes, l)
	}
	s.anew = slices.ContainsFunc(d.lanes, func(old *lane) bool {
		return !slices.ContainsFunc(s.lanes, func(l *lane) bool { return l.rows == old.rows })
	})
	return s, nil
}

// lane returns the lane of a kind of row, nil when there is none.
func (d *Detector) lane(kind features.RowKind) *lane {
	for _, l := range d.lanes {
		if l.kind == kind {
			return l
		}
	}
	return nil
}

// newSource returns what makes the rows of a lane.
func (d *Detector) newSource(l *lane) (*source, error) {
	s := &source{lane: l}
	var err error
	s.Extractor, err = features.NewExtractor(l.kind, features.Config{
		Columns: l.columns, MaxConnections: d.cfg.MaxConnections, Early: d.cfg.Early, StepBack: d.cfg.StepBack, Home: d.cfg.Home,
	}, func(r *features.Row) { d.add(s.lane, r) })
	return s, err
}

func (d *Detector) commit(s *swap) {
	d.incidents.mu.Lock()
	if s.anew {
		d.endAll() // with the first one: all are drained
	}
	if d.models != nil || d.incidents.models == nil {
		d.incidents.swap(d, s.scorers)
	}
	d.incidents.mu.Unlock()
	d.lanes, d.models, d.suppressed = s.lanes, s.scorers, s.suppressed
	for _, l := range d.lanes {
		l.rows.lane = l
	}
	d.batch = newBatch(d.lanes...)
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

// Run takes all frames of src, and ticks when it says that it is quiet. It ends with
// the source, with its error, or with that of the context; Finish must follow in
// any case.
func (d *Detector) Run(ctx context.Context, src capture.Source) error {
	d.fresh = true
	return capture.Read(ctx, src, &d.decoder, d.take, func(now int64) error {
		d.Tick(now)
		return d.err
	})
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
	case o.HasPacket() || p.ARP != nil:
		if !p.Fragment && p.PayloadLen > len(p.Payload) {
			s.Cut++
		}
		for _, l := range d.lanes {
			l.rows.Add(p)
		}
	case o == capture.UnsupportedLink && len(s.Links) < 8 && !slices.Contains(s.Links, f.Link):
		s.Links = append(s.Links, f.Link)
	}
	// Wall clocks are set back, so a tick long ahead is no reason to wait for it.
	if wait := int64(d.cfg.MaxWait); wait > 0 && (f.Time-d.lastTick >= wait || f.Time < d.lastTick) {
		d.Tick(f.Time)
	}
	return d.err
}

// Tick moves the packet clock to now, in nanoseconds since the Unix epoch: it judges
// the rows and publishes the events that are due. No frame older than that may
// follow, but for the order of packets in a capture.
func (d *Detector) Tick(now int64) {
	d.lastTick = now
	for _, l := range d.lanes {
		l.rows.Tick(now)
	}
	d.score()
	d.incidents.mu.Lock()
	defer d.incidents.mu.Unlock()
	d.catchUp(now)
}

// catchUp publishes what is due at the time now, of a row or a tick.
func (d *Detector) catchUp(now int64) {
	if now < d.last-int64(d.cfg.StepBack) {
		d.advance(never - 1) // the clock was set back: what was open is over
		d.last = now
	}
	d.last = max(d.last, now)
	d.advance(now)
}

// Finish makes the rows of the connections still open, scores what is left and
// ends all incidents: those of a common table when the last of its Detectors finishes.
// It returns the first error of a model.
func (d *Detector) Finish() error {
	d.drain()
	d.incidents.mu.Lock()
	defer d.incidents.mu.Unlock()
	if d.incidents.users--; d.incidents.users <= 0 {
		d.endAll()
	}
	return d.err
}

// flush ends all connections and incidents: what follows begins a new time.
func (d *Detector) flush() {
	d.drain()
	d.incidents.mu.Lock()
	defer d.incidents.mu.Unlock()
	d.endAll()
}

// endAll ends all incidents; the next row's time may be any.
func (d *Detector) endAll() {
	d.advance(never - 1)
	d.last = 0
}

// drain ends all connections and judges what is left.
func (d *Detector) drain() {
	for _, l := range d.lanes {
		l.rows.Flush()
	}
	d.score()
}

// Stats returns the counters so far. Those of a common table are of all its
// Detectors.
func (d *Detector) Stats() Stats {
	s := d.stats
	s.Outcomes = d.decoder.Counts
	s.Mirrors = d.decoder.Mirrors.Stats()
	for _, l := range d.lanes {
		s.Features.Add(l.rows.Stats())
	}
	s.Suppressed = d.suppressed.counts()
	d.incidents.mu.Lock()
	defer d.incidents.mu.Unlock()
	s.Incidents, s.Early = d.incidents.total, d.incidents.early
	return s
}

// Err returns the first error of a model: what follows is not judged.
func (d *Detector) Err() error { return d.err }

func (d *Detector) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// add takes a row into the batch.
func (d *Detector) add(l *lane, r *features.Row) {
	if r.Silent() {
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
	if b.n == 0 {
		return
	}
	defer b.clear(d.lanes)
	if err := b.score(d.lanes); err != nil {
		d.fail(err)
		return
	}
	d.incidents.mu.Lock()
	defer d.incidents.mu.Unlock()
	for k := range b.n {
		r, scores, models := &b.rows[k], b.scores(k), b.lanes[k].models
		d.catchUp(r.Time)
		d.stats.Judged++
		best := d.judge(r, models, scores)
		if best < 0 {
			continue
		}
		if r.Unsure && !d.incidents.crowded(r) {
			d.stats.Unsure++
			continue
		}
		d.stats.Anomalous++
		d.makeRoom(r)
		i := d.incidents.join(r)
		i.add(r, d.worker, models, scores, best)
		d.incidents.next = min(d.incidents.next, d.incidents.due(i))
	}
}

// judge returns which of the models finds the row anomalous by the highest score,
// -1 when none does or suppressions hide it.
func (d *Detector) judge(r *features.Row, models []*scorer, scores []float64) int {
	best, hidden := -1, -1
	for m, s := range scores {
		if s < models[m].Threshold || best >= 0 && s <= scores[best] {
			continue
		}
		if i := d.suppressed.match(r, models[m].index); i >= 0 {
			if hidden < 0 {
				hidden = i
			}
			continue
		}
		best = m
	}
	if best < 0 && hidden >= 0 {
		d.suppressed.count(hidden)
	}
	return best
}

// round rounds v to the given number of decimals.
func round(v float64, decimals int) float64 {
	p := math.Pow10(decimals)
	return math.Round(v*p) / p
}
