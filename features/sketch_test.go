package features

import (
	"math"
	"testing"

	"github.com/picket-ids/picket/capture"
)

// TestSketch counts addresses of one network, the way scans visit them.
func TestSketch(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 17, 100, 256, 1000, 5000, 60_000} {
		var s, odd, even Sketch
		for i := range n {
			h := HashAddr(capture.Addr{10: 0xff, 11: 0xff, 12: 10, 14: byte(i >> 8), 15: byte(i)})
			for range 2 { // counted once
				s.Add(h)
			}
			if i%2 == 0 {
				even.Add(h)
			} else {
				odd.Add(h)
			}
		}
		got := s.Count()
		if n < 16 && got != n || math.Abs(float64(got-n)) > 3*.065*float64(n) {
			t.Errorf("%d addresses: %d", n, got)
		}
		odd.Merge(&even)
		if odd.Count() != got {
			t.Errorf("%d addresses: %d, merged from two halves %d", n, got, odd.Count())
		}
	}
	var s Sketch
	for p := range uint16(1000) {
		s.Add(HashPort(p))
	}
	if n := s.Count(); n < 800 || n > 1200 {
		t.Errorf("1000 ports: %d", n)
	}
}
