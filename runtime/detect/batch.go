package detect

import (
	"math"
	"math/bits"
	"slices"

	"github.com/picket-ids/picket/features"
)

const (
	// maxBatch rows are scored at a time: past 64 a row costs hardly less
	// (XGBoost of 200 trees: 19.0 µs alone, 9.9 µs among 64, 8.9 µs among 256).
	maxBatch = 64
	// memoSize rows are remembered with their scores. Floods and scans make
	// the same row over and over, and a model gives the same row the same score.
	memoSize = 1024
)

// batch holds rows in their order until their scores are due.
type batch struct {
	n     int
	rows  []features.Row // each with Values of its own
	lanes []*lane        // of each row
	fresh []int          // of each row, its index among those that its lane is to score; -1 when it has its scores
	marks []float64      // scores of the rows, [maxBatch][models]
	most  int            // models of a lane
}

// lane is what rows of one kind, which the same models score, go through. All
// memory is allocated by newLane.
type lane struct {
	kind    features.RowKind
	rows    *source  // what makes the rows
	columns []string // of a row
	width   int
	models  []*scorer

	toScore []float32 // values, [pending][width]
	pending []int     // memo entries of the rows to score

	memo       []memo
	memoValues []float32 // [memoSize][width]
	memoScores []float64 // [memoSize][models]
}

// source is an Extractor and the lane that its rows go to.
type source struct {
	features.Extractor
	lane *lane
}

// memo remembers a row: with its scores, or as one of those to score.
type memo struct {
	used  bool
	fresh int // index in toScore, -1 once scored
}

// with returns a lane for models of a kind of row that goes on with the source of l,
// which may be nil, if its columns are enough; else it has no source yet. It tells the
// models where their columns are.
func (l *lane) with(kind features.RowKind, models []*scorer) *lane {
	var wanted []string
	for _, m := range models {
		for _, f := range m.Features {
			if !slices.Contains(wanted, f) {
				wanted = append(wanted, f)
			}
		}
	}
	if l == nil || slices.ContainsFunc(wanted, func(f string) bool { return !slices.Contains(l.columns, f) }) {
		l = &lane{columns: wanted}
	}
	for _, m := range models {
		for _, f := range m.Features {
			m.columns = append(m.columns, slices.Index(l.columns, f))
		}
	}
	next := newLane(l.columns, models)
	next.kind, next.rows = kind, l.rows
	return next
}

func newLane(columns []string, models []*scorer) *lane {
	width := len(columns)
	return &lane{
		models: models, columns: columns, width: width,
		toScore:    make([]float32, 0, maxBatch*width),
		pending:    make([]int, 0, maxBatch),
		memo:       make([]memo, memoSize),
		memoValues: make([]float32, memoSize*width),
		memoScores: make([]float64, memoSize*len(models)),
	}
}

func newBatch(lanes ...*lane) (b batch) {
	width := 0
	for _, l := range lanes {
		width, b.most = max(width, l.width), max(b.most, len(l.models))
	}
	b.rows = make([]features.Row, maxBatch)
	b.lanes = make([]*lane, maxBatch)
	b.fresh = make([]int, maxBatch)
	b.marks = make([]float64, maxBatch*b.most)
	for k := range b.rows {
		b.rows[k].Values = make([]float32, width)
	}
	return b
}

func (b *batch) full() bool { return b.n == maxBatch }

// scores returns those of row k, one for each model of its lane.
func (b *batch) scores(k int) []float64 {
	return b.marks[k*b.most : k*b.most+len(b.lanes[k].models)]
}

// add copies a row of lane l into the batch, which must not be full.
func (b *batch) add(l *lane, r *features.Row) {
	k := b.n
	b.n++
	own := b.rows[k].Values[:l.width]
	copy(own, r.Values)
	b.rows[k] = *r
	b.rows[k].Values, b.lanes[k] = own, l

	e := int(hashRow(own) % memoSize)
	m := &l.memo[e]
	values := l.memoValues[e*l.width : (e+1)*l.width]
	if m.used && slices.Equal(values, own) {
		if b.fresh[k] = m.fresh; m.fresh < 0 {
			copy(b.scores(k), l.memoScores[e*len(l.models):])
		}
		return
	}
	*m = memo{true, len(l.pending)}
	copy(values, own)
	b.fresh[k] = m.fresh
	l.pending = append(l.pending, e)
	l.toScore = append(l.toScore, own...)
}

// score gives every row its scores.
func (b *batch) score(lanes []*lane) error {
	for _, l := range lanes {
		if err := l.score(); err != nil {
			return err
		}
	}
	for k := range b.n {
		if f := b.fresh[k]; f >= 0 {
			scores := b.scores(k)
			for i, m := range b.lanes[k].models {
				scores[i] = float64(m.scores[f])
			}
		}
	}
	return nil
}

// score scores what is pending and remembers it.
func (l *lane) score() error {
	n := len(l.pending)
	if n == 0 {
		return nil
	}
	for _, m := range l.models {
		m.rows = m.rows[:0]
		for k := range n {
			m.gather(&m.rows, l.toScore[k*l.width:(k+1)*l.width])
		}
		if err := m.Score(m.rows, m.scores[:n]); err != nil {
			return err
		}
	}
	for f, e := range l.pending {
		if m := &l.memo[e]; m.fresh == f { // else another row has taken its place
			m.fresh = -1
			for i, s := range l.models {
				l.memoScores[e*len(l.models)+i] = float64(s.scores[f])
			}
		}
	}
	return nil
}

// clear empties the batch. Rows without scores are forgotten.
func (b *batch) clear(lanes []*lane) {
	for _, l := range lanes {
		for f, e := range l.pending {
			if l.memo[e].fresh == f {
				l.memo[e].used = false
			}
		}
		l.pending, l.toScore = l.pending[:0], l.toScore[:0]
	}
	// The full capacity of Values serves rows of any lane.
	for k := range b.n {
		b.rows[k].Values = b.rows[k].Values[:cap(b.rows[k].Values)]
	}
	b.n = 0
}

func hashRow(values []float32) uint64 {
	h := uint64(len(values))
	for _, v := range values {
		hi, lo := bits.Mul64(h^uint64(math.Float32bits(v)), 0x9e3779b97f4a7c15)
		h = hi ^ lo
	}
	return h ^ h>>32
}
