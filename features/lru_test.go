package features

import (
	"slices"
	"testing"
)

// TestLRU compares with a slice in the order of use.
func TestLRU(t *testing.T) {
	for _, limit := range []int{1, 2, 3, 10} {
		rng := newRand(uint64(limit))
		l := newLRU[uint64, int](limit)
		var order []uint64 // oldest first
		values := map[uint64]int{}
		evicted := uint64(0)
		for step := range 20_000 {
			k := rng.Uint64N(uint64(2*limit + 1))
			at := slices.Index(order, k)
			switch op := rng.IntN(1000); {
			case op == 0:
				l.reset()
				order = nil
				clear(values)
			case op < 200:
				v := l.peek(&k, hashUint64(k))
				if (v == nil) != (at < 0) || v != nil && *v != values[k] {
					t.Fatalf("limit %d, step %d: peek %d gives %v, have %v", limit, step, k, v, order)
				}
			default:
				v, isNew := l.use(&k, hashUint64(k))
				if isNew != (at < 0) || *v != values[k] {
					t.Fatalf("limit %d, step %d: use %d gives %d, new %v; have %v", limit, step, k, *v, isNew, order)
				}
				if at >= 0 {
					order = slices.Delete(order, at, at+1)
				} else if len(order) == limit {
					delete(values, order[0])
					order = order[1:]
					evicted++
				}
				order = append(order, k)
				*v = step
				values[k] = step
			}
			if l.evicted != evicted || l.table.len() != len(order) || (l.oldest < 0) != (len(order) == 0) {
				t.Fatalf("limit %d, step %d: %d evicted, %d held; want %d, %d", limit, step, l.evicted, l.table.len(), evicted, len(order))
			}
			i := l.oldest
			for _, k := range order {
				if l.table.entry(i).key != k {
					t.Fatalf("limit %d, step %d: %d where %v has %d", limit, step, l.table.entry(i).key, order, k)
				}
				i = l.table.at(i).newer
			}
		}
	}
}

func TestLRUAllocations(t *testing.T) {
	l := newLRU[uint64, [100]byte](1000)
	k := uint64(0)
	use := func() {
		for range 3000 {
			k++
			l.use(&k, hashUint64(k))
		}
		if k%5 == 0 {
			l.reset()
		}
	}
	use()
	if n := testing.AllocsPerRun(10, use); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
