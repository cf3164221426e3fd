package features

import (
	"math/bits"
	"math/rand/v2"
)

// table maps keys to values held at stable indices, up to a fixed capacity.
// Neither K nor V may hold pointers: the garbage collector then skips the
// entries, and they live in chunks that are allocated as the table fills and
// reused afterwards, so a full table allocates nothing. The caller hashes: a key
// behind a call that is not inlined would escape to the heap.
type table[K comparable, V any] struct {
	slots  []uint64 // hash's upper 32 bits, index+1 in the lower; 0 is empty
	mask   uint64
	chunks []*[chunkLen]entry[K, V]
	free   int32 // head of the list of freed entries, -1 at its end
	used   int32 // entries ever taken from chunks
	limit  int32
	n      int32
}

type entry[K comparable, V any] struct {
	key   K
	hash  uint32 // its upper 32 bits
	next  int32  // in the free list
	value V
}

const chunkLen = 256

func newTable[K comparable, V any](limit int) *table[K, V] {
	size := uint64(1) << bits.Len64(uint64(limit)*3/2)
	return &table[K, V]{slots: make([]uint64, size), mask: size - 1, free: -1, limit: int32(limit)}
}

func (t *table[K, V]) entry(i int32) *entry[K, V] {
	return &t.chunks[uint32(i)/chunkLen][uint32(i)%chunkLen]
}

// at returns the value at index i.
func (t *table[K, V]) at(i int32) *V { return &t.entry(i).value }

func (t *table[K, V]) len() int   { return int(t.n) }
func (t *table[K, V]) full() bool { return t.n >= t.limit }

// find returns the index of k's value, -1 when there is none.
func (t *table[K, V]) find(k *K, hash uint64) int32 {
	i, _ := t.look(k, hash)
	return i
}

func (t *table[K, V]) look(k *K, h uint64) (index int32, slot uint64) {
	for s := h >> 32 & t.mask; ; s = (s + 1) & t.mask {
		w := t.slots[s]
		if w == 0 {
			return -1, s
		}
		if w>>32 == h>>32 {
			if i := int32(uint32(w)) - 1; t.entry(i).key == *k {
				return i, s
			}
		}
	}
}

// put returns the index of k's value and whether it is new, and so the zero
// value. The table must not be full when k is new.
func (t *table[K, V]) put(k *K, h uint64) (index int32, isNew bool) {
	i, slot := t.look(k, h)
	if i >= 0 {
		return i, false
	}
	if t.free >= 0 {
		i = t.free
		t.free = t.entry(i).next
	} else {
		i = t.used
		t.used++
		if int(i/chunkLen) == len(t.chunks) {
			t.chunks = append(t.chunks, new([chunkLen]entry[K, V]))
		}
	}
	e := t.entry(i)
	*e = entry[K, V]{key: *k, hash: uint32(h >> 32)}
	t.slots[slot] = h>>32<<32 | uint64(uint32(i+1))
	t.n++
	return i, true
}

// remove frees the entry at index i.
func (t *table[K, V]) remove(i int32) {
	e := t.entry(i)
	s := uint64(e.hash) & t.mask
	for int32(uint32(t.slots[s]))-1 != i {
		s = (s + 1) & t.mask
	}
	// Shift back what probing had pushed past the gap.
	for n := (s + 1) & t.mask; t.slots[n] != 0; n = (n + 1) & t.mask {
		home := t.slots[n] >> 32 & t.mask
		if (n-home)&t.mask >= (n-s)&t.mask {
			t.slots[s] = t.slots[n]
			s = n
		}
	}
	t.slots[s] = 0
	e.next = t.free
	t.free = i
	t.n--
}

// seed is random in each process, so that no traffic can be made to collide.
// Nothing depends on the order of a table, so results do not depend on it.
var seed = [2]uint64{rand.Uint64() | 1, rand.Uint64()}

// mix folds the 128-bit product of two words into one: the step of wyhash.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^seed[0], b^seed[1])
	return hi ^ lo
}

func hashUint64(k uint64) uint64 { return mix(k, 0x9e3779b97f4a7c15) }
