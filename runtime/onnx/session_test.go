package onnx

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

const buildLibrary = "../../build/lib/libonnxruntime.so"

// testLibrary loads ONNX Runtime or skips the test; CI_REQUIRE_ORT=1 makes that a failure.
func testLibrary(t testing.TB) *Library {
	t.Helper()
	path := os.Getenv(EnvLibrary)
	if path == "" {
		path = buildLibrary
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI_REQUIRE_ORT") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%v: run sh cross/onnxruntime.sh build/lib", err)
	}
	lib, err := OpenLibrary(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

func testSession(t testing.TB, m *Model) *Session {
	t.Helper()
	s, err := OpenSession(testLibrary(t), m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestScoreTrees(t *testing.T) {
	f := newForest(20, 5, features, 1)
	s := testSession(t, accepted(t, fakeTrees(f, features)))
	const n = 2*MaxBatch + 3
	rows, scores := randomRows(n, features, 2), make([]float32, n)
	if err := s.Score(rows, scores); err != nil {
		t.Fatal(err)
	}
	for i, got := range scores {
		if want := f.score(rows[i*features : (i+1)*features]); math.Abs(float64(got)-want) > 1e-6 {
			t.Errorf("row %d: %v, want %v", i, got, want)
		}
	}
	if s.Rows != n || s.BadInputs != 0 || s.BadScores != 0 {
		t.Errorf("counters %d, %d, %d", s.Rows, s.BadInputs, s.BadScores)
	}
}

// A row has one score, to the bit, in a batch of any size and at any place in it.
func TestScoreSameBits(t *testing.T) {
	models := map[string]*Model{
		"trees":      accepted(t, fakeTrees(newForest(20, 5, features, 1), features)),
		"MatMul":     accepted(t, fakeAutoencoder(41, "MatMul")),
		"ReduceMean": accepted(t, fakeAutoencoder(41, "ReduceMean")),
		"shipped":    shipped(t),
	}
	for name, m := range models {
		t.Run(name, func(t *testing.T) {
			if m == nil {
				t.Skip("no ../../models/nslkdd-xgboost.onnx")
			}
			s := testSession(t, m)
			width := len(m.Features)
			const n = MaxBatch + 9
			rows, want, got := randomRows(n, width, 3), make([]float32, n), make([]float32, n)
			if err := s.Score(rows, want); err != nil {
				t.Fatal(err)
			}
			for size := 1; size <= n; size++ {
				for at := 0; at+size <= n; at += max(1, size/3) {
					if err := s.Score(rows[at*width:(at+size)*width], got[:size]); err != nil {
						t.Fatal(err)
					}
					for i := range size {
						if math.Float32bits(got[i]) != math.Float32bits(want[at+i]) {
							t.Fatalf("row %d of %d: %x, in another batch %x", i, size, got[i], want[at+i])
						}
					}
				}
			}
		})
	}
}

func shipped(t testing.TB) *Model {
	data, err := os.ReadFile("../../models/nslkdd-xgboost.onnx")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(data, "nslkdd-xgboost")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestScoreBadInputs(t *testing.T) {
	f := fakeTrees(newForest(20, 5, features, 1), features)
	f.meta["picket.typical"] = "[0.5,-0.5,0,1,-1]"
	s := testSession(t, accepted(t, f))
	inf := float32(math.Inf(1))
	nan := float32(math.NaN())
	rows := []float32{
		0.5, -0.5, 0, 1, -1,
		nan, inf, -inf, 1, nan,
		math.MaxFloat32, -math.MaxFloat32, 1e-45, 0, 0,
	}
	var scores [3]float32
	if err := s.Score(rows, scores[:]); err != nil {
		t.Fatal(err)
	}
	if scores[0] != scores[1] || s.BadInputs != 4 || s.BadScores != 0 {
		t.Errorf("scores %v, %d bad inputs, %d bad scores", scores, s.BadInputs, s.BadScores)
	}
	if rows[5] == rows[5] {
		t.Error("the caller's row was changed")
	}
}

func TestScoreBadScores(t *testing.T) {
	// The score is the logarithm of the first column: below 0, NaN, in range, infinite.
	f := fakeTrees(newForest(1, 0, features, 1), features)
	f.nodes = [][]byte{simple("Log", "l", "input"), simple("Gather", "score", "l", "columns")}
	f.nodes[1] = node("", "Gather", []string{"l", "columns"}, []string{"score"}, attr("axis", 1))
	f.initializers = [][]byte{tensor("columns", typeInt64, make([]byte, 8), 1)}
	s := testSession(t, accepted(t, f))
	rows := make([]float32, 4*features)
	rows[0], rows[features], rows[2*features], rows[3*features] = 0.5, -1, 2, 0
	scores := []float32{9, 9, 9, 9}
	if err := s.Score(rows, scores); err != nil {
		t.Fatal(err)
	}
	if scores[0] != 0 || scores[1] != 0 || math.Abs(float64(scores[2])-math.Ln2) > 1e-6 || scores[3] != 0 || s.BadScores != 3 {
		t.Errorf("scores %v, %d bad", scores, s.BadScores)
	}
}

func TestScoreErrors(t *testing.T) {
	s := testSession(t, accepted(t, fakeTrees(newForest(1, 1, features, 1), features)))
	if err := s.Score(make([]float32, features+1), make([]float32, 1)); err == nil {
		t.Error("a value too many was accepted")
	}
	if err := s.Score(nil, nil); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Score(make([]float32, features), make([]float32, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestScoreDoesNotAllocate(t *testing.T) {
	s := testSession(t, accepted(t, fakeTrees(newForest(20, 5, features, 1), features)))
	rows, scores := randomRows(MaxBatch+1, features, 5), make([]float32, MaxBatch+1)
	for _, n := range []int{1, 16, MaxBatch, MaxBatch + 1} {
		if got := testing.AllocsPerRun(100, func() { s.Score(rows[:n*features], scores[:n]) }); got != 0 {
			t.Errorf("%d rows: %v allocations", n, got)
		}
	}
}

func TestCheckGolden(t *testing.T) {
	m := accepted(t, fakeTrees(newForest(20, 5, features, 1), features))
	s := testSession(t, m)
	if err := s.CheckGolden(m.Golden); err != nil {
		t.Error(err)
	}
	g := Golden{Rows: m.Golden.Rows, Scores: []float32{m.Golden.Scores[0], m.Golden.Scores[1] + 2e-5}}
	if err := s.CheckGolden(g); err == nil || !strings.Contains(err.Error(), "model fake, golden row 2: scores 0.") {
		t.Errorf("error %v, want one that names row 2", err)
	}
	if m := shipped(t); m != nil {
		if err := testSession(t, m).CheckGolden(m.Golden); err != nil {
			t.Error(err)
		}
	}
}

// The first model of many has no Sigmoid: its scores are what the trees add up to.
func TestCheckGoldenWithoutSigmoid(t *testing.T) {
	f := fakeTrees(newForest(1, 0, features, 1), features)
	f.nodes = [][]byte{node("", "Gather", []string{"input", "columns"}, []string{"score"}, attr("axis", 1))}
	f.initializers = [][]byte{tensor("columns", typeInt64, make([]byte, 8), 1)}
	m := accepted(t, f)
	s := testSession(t, m)
	row := func(x float32) []float32 { return []float32{x, 0, 0, 0, 0} }
	for _, x := range []float32{2, -0.5} {
		err := s.CheckGolden(Golden{Rows: [][]float32{row(0.25), row(x)}, Scores: []float32{0.75, 0}})
		want := fmt.Sprintf("model fake, golden row 2: the graph's score is %v, not 0 to 1: end the graph with a Sigmoid", x)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestOpenSessionError(t *testing.T) {
	// Passes the check, but no output of the graph computes the score.
	f := fakeTrees(newForest(1, 1, features, 1), features)
	f.nodes[1] = simple("Sigmoid", "other", "sum")
	if _, err := OpenSession(testLibrary(t), accepted(t, f)); err == nil || !strings.HasPrefix(err.Error(), "open session of model fake: ") {
		t.Errorf("error %v", err)
	}
}

// Models with a few changed bytes are refused by the check or do not kill the process.
func TestCorruptModels(t *testing.T) {
	lib := testLibrary(t)
	r := rand.New(rand.NewPCG(1, 2))
	for name, f := range map[string]*fake{
		"trees": fakeTrees(newForest(4, 3, features, 1), features), "autoencoder": fakeAutoencoder(features, "ReduceMean"),
	} {
		good := f.bytes()
		refused, failed, ran := 0, 0, 0
		for range 500 {
			data := append([]byte(nil), good...)
			for range 1 + r.IntN(3) {
				data[r.IntN(len(data))] = byte(r.Uint32())
			}
			m, err := Parse(data, name)
			if err != nil {
				refused++
				continue
			}
			s, err := OpenSession(lib, m)
			if err != nil {
				failed++
				continue
			}
			s.Score(randomRows(MaxBatch, len(m.Features), 1), make([]float32, MaxBatch))
			s.Close()
			ran++
		}
		t.Logf("%s: %d refused by the check, %d by ONNX Runtime, %d ran", name, refused, failed, ran)
	}
}

func BenchmarkScore(b *testing.B) {
	m := shipped(b)
	if m == nil {
		b.Skip("no ../../models/nslkdd-xgboost.onnx")
	}
	s := testSession(b, m)
	width := len(m.Features)
	for _, bench := range []struct {
		name string
		rows int
	}{{"1", 1}, {"16", 16}, {"64", 64}} {
		b.Run("rows="+bench.name, func(b *testing.B) {
			// Golden rows over and over: real values take real paths through the trees.
			var rows []float32
			for i := range bench.rows {
				rows = append(rows, m.Golden.Rows[i%len(m.Golden.Rows)]...)
			}
			scores := make([]float32, len(rows)/width)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Score(rows, scores); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*bench.rows), "ns/row")
		})
	}
}

func BenchmarkParse(b *testing.B) {
	m := shipped(b)
	if m == nil {
		b.Skip("no ../../models/nslkdd-xgboost.onnx")
	}
	b.SetBytes(int64(m.Size))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(m.data, "shipped"); err != nil {
			b.Fatal(err)
		}
	}
}
