package features

const (
	seriesLen     = 64 // samples that a transform takes at most
	waveletLevels = 5
	taps          = 8
)

// The low-pass filter of Daubechies' wavelet with four vanishing moments, in the
// order of the samples: PyWavelets' rec_lo of "db4", its dec_lo reversed. The
// high-pass filter has them backwards, every second one negative. They are
// constants because that makes a transform a fifth faster than arrays do.
const (
	h0 = 0.2303778133088965
	h1 = 0.7148465705529157
	h2 = 0.6308807679298589
	h3 = -0.027983769416859854
	h4 = -0.18703481171909309
	h5 = 0.030841381835560764
	h6 = 0.0328830116668852
	h7 = -0.010597401785069032
)

// bands are the energies of a series' wavelet details: the sums of the squared
// coefficients of each level, the finest (highest frequencies) first.
type bands struct {
	energy [waveletLevels]float64
	n      int // levels that the series has
}

// transform is a discrete wavelet transform, and its memory. It takes a series
// for one period of an endless one, as PyWavelets' wavedec(x, "db4",
// mode="periodization", level=n) does: a line of odd length is first lengthened
// by its last sample. The last halving is that to a single coefficient, or the
// fifth: 64 to 33 samples have 5 levels, as have 32 to 17; 16 to 9 have 4, 8 to 5
// have 3, 4 and 3 have 2, 2 have 1, 1 and 0 have none. (PyWavelets calls levels
// past dwt_max_level too high, of 64 samples the fourth and fifth, for all their
// coefficients see both ends of the series; and computes them all the same.)
type transform struct {
	// line holds the samples of a level, and the approximation that is the next
	// level's, from index margin on, with their neighbours by the period around.
	line   [2][seriesLen + taps - 1]float64
	first  float64 // sample, taken off all
	approx int     // coefficients left after the last level
	which  int     // line that holds them
	// detail holds the coefficients of all levels, the finest first.
	detail [seriesLen]float64
}

// margin is how many samples before its own two a coefficient takes in.
const margin = taps/2 - 1

// put sets sample i of the next series, from 0 up. Details do not depend on the
// level of a series, so that of its first sample is taken off: a constant series
// has energies of exactly 0, not of rounding errors.
func (t *transform) put(i int, v float64) {
	if i == 0 {
		t.first = v
	}
	t.line[0][margin+i] = v - t.first
}

// run transforms the n samples that were put.
func (t *transform) run(n int) (b bands) {
	t.which = 0
	done := 0
	for b.n < waveletLevels && n > 1 {
		x, y := &t.line[t.which], &t.line[1-t.which]
		if n&1 != 0 {
			x[margin+n] = x[margin+n-1]
			n++
		}
		// A line shorter than the margins comes round more than once.
		for i := margin - 1; i >= 0; i-- {
			x[i] = x[i+n]
		}
		for i := margin + n; i < n+taps-1; i++ {
			x[i] = x[i-n]
		}
		n /= 2
		b.energy[b.n] = halve(x[:], y[margin:margin+n], t.detail[done:done+n])
		done += n
		t.which = 1 - t.which
		b.n++
	}
	t.approx = n
	return b
}

// halve is one level: of the samples x, with their margins, it makes the
// approximation and the detail, half as many each, and returns the detail's energy.
// Products are rounded before they are added: see float.go.
func halve(x, approx, detail []float64) (energy float64) {
	detail = detail[:len(approx)]
	for o := range approx {
		w := (*[taps]float64)(x[2*o:])
		approx[o] = (float64(w[0]*h0) + float64(w[1]*h1) + float64(w[2]*h2) + float64(w[3]*h3)) +
			(float64(w[4]*h4) + float64(w[5]*h5) + float64(w[6]*h6) + float64(w[7]*h7))
		d := (float64(w[0]*h7) - float64(w[1]*h6) + float64(w[2]*h5) - float64(w[3]*h4)) +
			(float64(w[4]*h3) - float64(w[5]*h2) + float64(w[6]*h1) - float64(w[7]*h0))
		detail[o] = d
		energy += float64(d * d)
	}
	return energy
}

func (b *bands) total() (sum float64) {
	for _, e := range b.energy {
		sum += e
	}
	return sum
}

// entropy is Shannon's entropy of how the energy spreads over the bands, as a
// share of that of an even spread: 0 when one band has it all, 1 when all have
// alike. It is 0 without energy (a constant series) and with fewer than two bands
// (fewer than three samples).
func (b *bands) entropy() float64 {
	sum := b.total()
	if b.n < 2 || sum <= 0 {
		return 0
	}
	h := 0.0
	for _, e := range b.energy[:b.n] {
		if p := e / sum; p > 0 {
			h -= float64(p * ln(p))
		}
	}
	return min(max(h/logs[b.n], 0), 1)
}

var logs = func() (l [waveletLevels + 1]float64) {
	for n := range l[1:] {
		l[n+1] = ln(float64(n + 1))
	}
	return l
}()

// fine is the share of the energy that the two finest bands have: 1 when there
// are no others (two to four samples), and 0 without energy.
func (b *bands) fine() float64 {
	if sum := b.total(); sum > 0 {
		return (b.energy[0] + b.energy[1]) / sum
	}
	return 0
}
