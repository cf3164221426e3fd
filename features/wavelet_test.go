package features

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

// waveletGolden is what testdata/wavelet_golden.py computed with PyWavelets.
type waveletGolden struct {
	Versions map[string]string
	Series   []struct {
		Name             string
		X, Approximation []float64
		Details          [][]float64 // the finest first
		Energies         []float64
		Entropy, Fine    float64
	}
	Rows map[string][][]any // by capture
}

func readWaveletGolden(t *testing.T) (g waveletGolden) {
	t.Helper()
	f, err := os.Open("testdata/wavelet_golden.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(&g); err != nil {
		t.Fatal(err)
	}
	return g
}

// near reports whether a is b, give or take; NaN is near nothing.
func near(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance }

func transformOf(t *transform, x []float64) bands {
	for i, v := range x {
		t.put(i, v)
	}
	return t.run(len(x))
}

// details returns the coefficients of each level, the finest first.
func (t *transform) details(n, levels int) (all [][]float64) {
	rest := t.detail[:]
	for range levels {
		n = (n + 1) / 2
		all = append(all, rest[:n:n])
		rest = rest[n:]
	}
	return all
}

func (t *transform) approximation() []float64 { return t.line[t.which][margin : margin+t.approx] }

func TestWaveletGolden(t *testing.T) {
	const tolerance = 1e-9
	g := readWaveletGolden(t)
	lengths := map[int]bool{}
	var tr transform
	for _, s := range g.Series {
		t.Run(s.Name, func(t *testing.T) {
			n := len(s.X)
			lengths[n] = true
			b := transformOf(&tr, s.X)
			if b.n != len(s.Details) || tr.approx != len(s.Approximation) {
				t.Fatalf("%d levels and %d coefficients left, want %d and %d", b.n, tr.approx, len(s.Details), len(s.Approximation))
			}
			for l, d := range tr.details(n, b.n) {
				if len(d) != len(s.Details[l]) {
					t.Fatalf("level %d has %d coefficients, want %d", l+1, len(d), len(s.Details[l]))
				}
				for i, v := range d {
					if !near(v, s.Details[l][i], tolerance) {
						t.Errorf("detail %d of level %d is %v, want %v", i, l+1, v, s.Details[l][i])
					}
				}
			}
			level := s.X[0] * math.Pow(math.Sqrt2, float64(b.n)) // which put took off
			for i, v := range tr.approximation() {
				if !near(v+level, s.Approximation[i], tolerance) {
					t.Errorf("approximation %d is %v, want %v", i, v+level, s.Approximation[i])
				}
			}
			sum := 0.0
			for _, e := range s.Energies {
				sum += e
			}
			for l, e := range s.Energies {
				if !near(b.energy[l], e, tolerance*max(sum, 1)) {
					t.Errorf("energy of level %d is %v, want %v", l+1, b.energy[l], e)
				}
			}
			if !near(b.entropy(), s.Entropy, tolerance) || !near(b.fine(), s.Fine, tolerance) {
				t.Errorf("entropy %v, fine %v, want %v and %v", b.entropy(), b.fine(), s.Entropy, s.Fine)
			}
		})
	}
	if len(lengths) != seriesLen {
		t.Errorf("%d lengths", len(lengths))
	}
}

func TestWaveletLevels(t *testing.T) {
	var tr transform
	for n := range seriesLen + 1 {
		want := 0
		for m := n; m > 1 && want < waveletLevels; m = (m + 1) / 2 {
			want++
		}
		if b := transformOf(&tr, make([]float64, n)); b != (bands{n: want}) || tr.approx > max(1, (n+31)/32) {
			t.Errorf("%d samples: %+v, want %d levels; %d left", n, b, want, tr.approx)
		}
	}
}

func randomSeries(rng *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = rng.NormFloat64() * 500
	}
	return x
}

// TestWaveletEnergy: the transform of a power of two of samples is orthonormal.
func TestWaveletEnergy(t *testing.T) {
	rng := newRand(21)
	var tr transform
	for n := 2; n <= seriesLen; n *= 2 {
		for range 100 {
			x := randomSeries(rng, n)
			x[0] = 0 // so that put takes nothing off
			before, after := 0.0, 0.0
			for _, v := range x {
				before += v * v
			}
			b := transformOf(&tr, x)
			for _, v := range tr.approximation() {
				after += v * v
			}
			if after += b.total(); !near(after, before, 1e-12*before) {
				t.Fatalf("%d samples: energy %v, of the coefficients %v", n, before, after)
			}
		}
	}
}

// TestWaveletLinear: the details of a sum are the sum of the details, and neither
// depend on the level of the series nor, in energy, on where 64 samples begin by 32.
func TestWaveletLinear(t *testing.T) {
	rng := newRand(22)
	var tx, ty, tz transform
	for n := 1; n <= seriesLen; n++ {
		for range 10 {
			x, y, z := randomSeries(rng, n), randomSeries(rng, n), make([]float64, n)
			a, b, c := rng.NormFloat64(), rng.NormFloat64(), rng.NormFloat64()*1000
			for i := range z {
				z[i] = a*x[i] + b*y[i] + c
			}
			bx := transformOf(&tx, x)
			transformOf(&ty, y)
			transformOf(&tz, z)
			dx, dy := tx.details(n, bx.n), ty.details(n, bx.n)
			for l, d := range tz.details(n, bx.n) {
				for i, v := range d {
					if want := a*dx[l][i] + b*dy[l][i]; !near(v, want, 1e-9) {
						t.Fatalf("%d samples, level %d: %v, want %v", n, l+1, v, want)
					}
				}
			}
		}
	}
	x := randomSeries(rng, seriesLen)
	b, c := transformOf(&tx, x), transformOf(&tx, append(append([]float64{}, x[32:]...), x[:32]...))
	for l := range b.energy {
		if !near(b.energy[l], c.energy[l], 1e-9*b.total()) {
			t.Errorf("level %d: energy %v, turned by 32 samples %v", l+1, b.energy[l], c.energy[l])
		}
	}
}

func TestBands(t *testing.T) {
	for _, tc := range []struct {
		name          string
		energy        [waveletLevels]float64
		n             int
		entropy, fine float64
	}{
		{name: "no packets"},
		{name: "one packet", n: 0},
		{name: "two packets", energy: [5]float64{7}, n: 1, entropy: 0, fine: 1},
		{name: "two packets alike", n: 1},
		{name: "64 packets alike", n: 5},
		{name: "even", energy: [5]float64{3, 3, 3, 3, 3}, n: 5, entropy: 1, fine: .4},
		{name: "even in three bands", energy: [5]float64{2, 2, 2}, n: 3, entropy: 1, fine: 2. / 3},
		{name: "one band", energy: [5]float64{0, 0, 0, 9, 0}, n: 5, entropy: 0, fine: 0},
		{name: "half and half", energy: [5]float64{4, 0, 4, 0}, n: 4, entropy: .5, fine: .5},
		{name: "1 to 3", energy: [5]float64{1, 3}, n: 2, entropy: 2 - .75*math.Log2(3), fine: 1},
	} {
		b := bands{tc.energy, tc.n}
		if e, f := b.entropy(), b.fine(); !near(e, tc.entropy, 1e-15) || !near(f, tc.fine, 1e-15) {
			t.Errorf("%s: entropy %v, fine %v, want %v and %v", tc.name, e, f, tc.entropy, tc.fine)
		}
	}
}

// TestEntropyRange: rounding leaves it within 0 and 1.
func TestEntropyRange(t *testing.T) {
	rng := newRand(24)
	for range 100_000 {
		b := bands{n: 2 + rng.IntN(waveletLevels-1)}
		even := rng.ExpFloat64()
		for l := range b.n {
			b.energy[l] = even
		}
		if e := b.entropy(); e > 1 || e < 1-1e-12 {
			t.Fatalf("%v: entropy %v", b, e)
		}
	}
}

func BenchmarkWavelet(b *testing.B) {
	rng := newRand(23)
	for _, n := range []int{8, 33, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			x := randomSeries(rng, n)
			var tr transform
			sum := 0.0
			b.ReportAllocs()
			for b.Loop() {
				bands := transformOf(&tr, x)
				sum += bands.entropy()
			}
		})
	}
}
