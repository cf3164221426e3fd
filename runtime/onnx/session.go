package onnx

import (
	"errors"
	"fmt"
	"math"
	"sync"

	ort "github.com/yalue/onnxruntime_go"
)

// MaxBatch is the most rows that one call into ONNX Runtime scores; Score splits what is longer.
const MaxBatch = 64

// step is what the number of rows in a call is rounded up to. ONNX Runtime's vector code takes 4 floats at a time and
// what is left over in another way, which rounds otherwise: on arm64 the sigmoid of the last 3 of 7 rows
// has other bits than the same 3 of 8. On amd64 with AVX it makes no difference.
const step = 4

// ErrClosed is what a closed Session answers.
var ErrClosed = errors.New("session is closed")

// Session is a model in ONNX Runtime. One goroutine uses it at a time.
type Session struct {
	// Counts since the session was made; read them on the goroutine that scores.
	Rows      uint64 // scored
	BadInputs uint64 // NaN or infinite values that were replaced by the column's typical value
	BadScores uint64 // scores that were NaN or outside 0..1 and became 0

	name     string
	features int
	typical  []float32

	session *ort.DynamicAdvancedSession
	in      []float32 // [MaxBatch, features], C memory
	out     []float32 // [MaxBatch], C memory
	most    int       // rows to a batch: MaxBatch, or 1
	batches [MaxBatch / step]batch
}

// batch is what ONNX Runtime needs to score so many rows: tensors over the first of in and out, bound once.
type batch struct {
	in, out *ort.Tensor[float32]
	binding *ort.IoBinding
}

var quieted sync.Once

// OpenSession makes a session of a model. The model may be dropped afterwards; the caller closes the session.
func OpenSession(lib *Library, m *Model) (*Session, error) {
	s := &Session{name: m.Name, features: len(m.Features), typical: m.Typical, most: MaxBatch}
	if m.alone {
		s.most = 1
	}
	if err := s.open(lib, m); err != nil {
		s.Close()
		return nil, fmt.Errorf("open session of model %s: %w", m.Name, err)
	}
	trimHeap()
	return s, nil
}

func (s *Session) open(lib *Library, m *Model) error {
	options, err := ort.NewSessionOptions()
	if err != nil {
		return err
	}
	defer options.Destroy()
	err = errors.Join(
		options.SetIntraOpNumThreads(1),
		options.SetInterOpNumThreads(1),
		options.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
		options.AddSessionConfigEntry("session.inter_op.allow_spinning", "0"),
	)
	if err != nil {
		return err
	}
	create := func() {
		s.session, err = ort.NewDynamicAdvancedSessionWithONNXData(m.data, []string{m.input}, []string{m.output}, options)
	}
	if lib.noisy {
		quieted.Do(func() { withoutSchemaErrors(create) })
	}
	if s.session == nil && err == nil {
		create()
	}
	if err != nil {
		return err
	}
	if s.in, err = newFloats(MaxBatch * s.features); err != nil {
		return err
	}
	if s.out, err = newFloats(MaxBatch); err != nil {
		return err
	}
	for i := range s.batches {
		n := int64(i+1) * step
		shape := ort.NewShape(n)
		if m.column {
			shape = ort.NewShape(n, 1)
		}
		b := &s.batches[i]
		if b.in, err = ort.NewTensor(ort.NewShape(n, int64(s.features)), s.in); err != nil {
			return err
		}
		if b.out, err = ort.NewTensor(shape, s.out); err != nil {
			return err
		}
		if b.binding, err = s.session.CreateIoBinding(); err != nil {
			return err
		}
		if err := errors.Join(b.binding.BindInput(m.input, b.in), b.binding.BindOutput(m.output, b.out)); err != nil {
			return err
		}
	}
	return nil
}

// Score writes the score of each row into scores: 0 to 1, larger is more anomalous. Rows is [N, features] in
// one slice, N = len(scores), of any size; batches of 16 to 64 are the fastest by row. The score of a row has
// the same bits whatever rows it comes with. A value that is NaN or infinite counts as a BadInput and is scored as the column's
// typical value, also where the model itself would know what to do with NaN. A score that is NaN or outside 0..1 counts as a
// BadScore and becomes 0. Score does not allocate; it keeps neither slice.
func (s *Session) Score(rows, scores []float32) error {
	if s.session == nil {
		return fmt.Errorf("score with model %s: %w", s.name, ErrClosed)
	}
	if len(rows) != len(scores)*s.features {
		return fmt.Errorf("score with model %s: %d values for %d rows of %d features", s.name, len(rows), len(scores), s.features)
	}
	for len(scores) > 0 {
		n := min(len(scores), s.most)
		if err := s.score(rows[:n*s.features], scores[:n]); err != nil {
			return fmt.Errorf("score with model %s: %w", s.name, err)
		}
		rows, scores = rows[n*s.features:], scores[n:]
	}
	return nil
}

func (s *Session) score(rows, scores []float32) error {
	for i, x := range rows {
		if x-x != 0 { // NaN or infinite
			x = s.typical[i%s.features]
			s.BadInputs++
		}
		s.in[i] = x
	}
	// What fills up the step is left from earlier batches: its scores are not looked at.
	if err := s.session.RunWithBinding(s.batches[(len(scores)-1)/step].binding); err != nil {
		return err
	}
	for i := range scores {
		x := s.out[i]
		if !(x >= 0 && x <= 1) {
			x = 0
			s.BadScores++
		}
		scores[i] = x
	}
	s.Rows += uint64(len(scores))
	return nil
}

// CheckGolden scores the golden rows and names the first whose score is outside 0..1 or, if there is none, is not the
// trainer's: within 1e-6, or 1e-5 of its value.
func (s *Session) CheckGolden(g Golden) error {
	score := make([]float32, 1)
	var differs error
	for i, row := range g.Rows {
		before := s.BadScores
		if err := s.Score(row, score); err != nil {
			return err
		}
		if s.BadScores > before {
			return fmt.Errorf("model %s, golden row %d: the graph's score is %v, not 0 to 1: end the graph with a Sigmoid or a Clip",
				s.name, i+1, s.out[0])
		}
		got, want := float64(score[0]), float64(g.Scores[i])
		if d := math.Abs(got - want); differs == nil && !(d <= max(1e-6, 1e-5*want)) {
			differs = fmt.Errorf("model %s, golden row %d: scores %.7f here, %.7f where it was trained", s.name, i+1, got, want)
		}
	}
	return differs
}

// Close frees the session. It is safe twice.
func (s *Session) Close() error {
	var errs []error
	for i := range s.batches {
		b := &s.batches[i]
		if b.binding != nil {
			errs = append(errs, b.binding.Destroy())
		}
		if b.in != nil {
			errs = append(errs, b.in.Destroy())
		}
		if b.out != nil {
			errs = append(errs, b.out.Destroy())
		}
		*b = batch{}
	}
	if s.session != nil {
		errs = append(errs, s.session.Destroy())
	}
	freeFloats(s.in)
	freeFloats(s.out)
	s.session, s.in, s.out = nil, nil, nil
	trimHeap()
	return errors.Join(errs...)
}
