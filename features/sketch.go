package features

import (
	"math"
	"math/bits"
	"slices"
)

// A Sketch counts distinct values in fixed memory: exactly below 16, then by
// HyperLogLog (Flajolet et al. 2007) with 256 registers, whose standard error is
// 6.5 %. The zero value is empty.
type Sketch struct {
	exact     [16]uint64 // hashes
	n         uint8      // used of exact
	registers [256]uint8
}

// Add counts the value that hash stands for. Equal values must have equal
// hashes, different ones should differ in all bits.
func (s *Sketch) Add(hash uint64) {
	if int(s.n) < len(s.exact) && !slices.Contains(s.exact[:s.n], hash) {
		s.exact[s.n] = hash
		s.n++
		s.register(hash)
	} else if int(s.n) == len(s.exact) {
		s.register(hash)
	}
}

func (s *Sketch) register(hash uint64) {
	r := &s.registers[hash>>56]
	*r = max(*r, uint8(bits.LeadingZeros64(hash<<8|1<<7))+1)
}

// Count estimates the number of distinct values added.
func (s *Sketch) Count() int {
	if int(s.n) < len(s.exact) {
		return int(s.n)
	}
	const m = float64(len(s.registers))
	sum, zeros := 0.0, 0.0
	for _, r := range s.registers {
		sum += math.Ldexp(1, -int(r))
		if r == 0 {
			zeros++
		}
	}
	e := 0.7213 / (1 + 1.079/m) * m * m / sum
	if e <= 2.5*m && zeros > 0 {
		e = m * math.Log(m/zeros)
	}
	return max(len(s.exact), int(e+.5))
}

// Merge adds all that o counts.
func (s *Sketch) Merge(o *Sketch) {
	for _, h := range o.exact[:o.n] {
		s.Add(h)
	}
	for k, r := range o.registers {
		s.registers[k] = max(s.registers[k], r)
	}
}

// HashAddr and HashPort hash values for a Sketch; alike in every process, so that
// the same traffic gives the same counts.

func HashAddr(a [16]byte) uint64 {
	var h uint64
	for _, b := range a {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	return avalanche(h)
}

func HashPort(p uint16) uint64 { return avalanche(uint64(p) + 1) }

// avalanche is the finaliser of MurmurHash3.
func avalanche(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
