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

// batch holds rows until their scores are due. All memory is allocated by init.
type batch struct {
	width, models int

	n      int
	rows   []features.Row // each with Values of its own
	fresh  []int          // of each row, its index among those to score; -1 when it has its scores
	scores []float64      // [maxBatch][models]

	toScore []float32 // values, [pending][width]
	pending []int     // memo entries of the rows to score

	memo       []memo
	memoValues []float32 // [memoSize][width]
	memoScores []float64 // [memoSize][models]
}

// memo remembers a row: with its scores, or as one of those to score.
type memo struct {
	used  bool
	fresh int // index in toScore, -1 once scored
}

func (b *batch) init(width, models int) {
	*b = batch{
		width: width, models: models,
		rows:       make([]features.Row, maxBatch),
		fresh:      make([]int, maxBatch),
		scores:     make([]float64, maxBatch*models),
		toScore:    make([]float32, 0, maxBatch*width),
		pending:    make([]int, 0, maxBatch),
		memo:       make([]memo, memoSize),
		memoValues: make([]float32, memoSize*width),
		memoScores: make([]float64, memoSize*models),
	}
	for k := range b.rows {
		b.rows[k].Values = make([]float32, width)
	}
}

func (b *batch) full() bool { return b.n == maxBatch }

// of returns the scores of row k, one for each model.
func (b *batch) of(k int) []float64 { return b.scores[k*b.models : (k+1)*b.models] }

// add copies r into the batch, which must not be full.
func (b *batch) add(r *features.Row) {
	k := b.n
	b.n++
	own := b.rows[k].Values
	copy(own, r.Values)
	b.rows[k] = *r
	b.rows[k].Values = own

	e := int(hashRow(own) % memoSize)
	m := &b.memo[e]
	values := b.memoValues[e*b.width : (e+1)*b.width]
	if m.used && slices.Equal(values, own) {
		if b.fresh[k] = m.fresh; m.fresh < 0 {
			copy(b.of(k), b.memoScores[e*b.models:])
		}
		return
	}
	*m = memo{true, len(b.pending)}
	copy(values, own)
	b.fresh[k] = m.fresh
	b.pending = append(b.pending, e)
	b.toScore = append(b.toScore, own...)
}

// score gives every row its scores.
func (b *batch) score(models []*scorer) error {
	n := len(b.pending)
	if n > 0 {
		for _, m := range models {
			m.rows = m.rows[:0]
			for k := range n {
				m.gather(&m.rows, b.toScore[k*b.width:(k+1)*b.width])
			}
			if err := m.Score(m.rows, m.scores[:n]); err != nil {
				return err
			}
		}
	}
	for k := range b.n {
		if f := b.fresh[k]; f >= 0 {
			for i, m := range models {
				b.scores[k*b.models+i] = float64(m.scores[f])
			}
		}
	}
	for f, e := range b.pending {
		if m := &b.memo[e]; m.fresh == f { // else another row has taken its place
			m.fresh = -1
			for i, s := range models {
				b.memoScores[e*b.models+i] = float64(s.scores[f])
			}
		}
	}
	return nil
}

// clear empties the batch. Rows without scores are forgotten.
func (b *batch) clear() {
	for f, e := range b.pending {
		if b.memo[e].fresh == f {
			b.memo[e].used = false
		}
	}
	b.n, b.pending, b.toScore = 0, b.pending[:0], b.toScore[:0]
}

func hashRow(values []float32) uint64 {
	h := uint64(len(values))
	for _, v := range values {
		hi, lo := bits.Mul64(h^uint64(math.Float32bits(v)), 0x9e3779b97f4a7c15)
		h = hi ^ lo
	}
	return h ^ h>>32
}
