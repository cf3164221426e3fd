package features

import "math"

// The functions below use nothing but IEEE 754's own operations, each rounded
// (float64(x*y)+z keeps a compiler from fusing the two, as Go's does on arm64,
// ppc64, riscv64 and s390x): rows have the same bits on every machine. math.Exp
// and math.Log are another code on each, and differ in the last bit.

// fade returns e^-(t/span) within 1e-15, and 0 past 64 spans.
func fade(t, span int64) float64 {
	if t <= 0 {
		return 1
	}
	x := float64(t) / float64(span)
	if x >= 64 {
		return 0
	}
	whole := int(x)
	x -= float64(whole)
	part := int(x * 64)
	x -= float64(part) / 64
	y := 1.0
	for _, k := range [...]float64{1. / 6, 1. / 5, 1. / 4, 1. / 3, 1. / 2, 1} { // Horner's scheme of the Taylor series
		y = 1 - float64(float64(x*k)*y)
	}
	return float64(fades[0][whole]*fades[1][part]) * y
}

// fades holds e^-n and e^-(n/64).
var fades = func() (f [2][64]float64) {
	for k, step := range []float64{0.36787944117144232, 0.98449643700540845} {
		f[k][0] = 1
		for n := 1; n < len(f[k]); n++ {
			f[k][n] = f[k][n-1] * step
		}
	}
	return f
}()

// ln returns the natural logarithm of x > 0 within 1e-15 of it or of 1.
func ln(x float64) float64 {
	f, e := math.Frexp(x)
	if f < math.Sqrt2/2 {
		f, e = f*2, e-1
	}
	s := (f - 1) / (f + 1) // ln f is 2 artanh s
	z := s * s
	y := 1. / 23
	for k := 21; k > 0; k -= 2 {
		y = float64(y*z) + 1/float64(k)
	}
	return float64(float64(e)*math.Ln2) + float64(2*s*y)
}
