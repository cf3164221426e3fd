package features

// lru is a table that always has room: the entry that was used longest ago makes
// it, and is counted.
type lru[K comparable, V any] struct {
	table          *table[K, used[V]]
	oldest, newest int32 // -1 when empty
	evicted        uint64
}

type used[V any] struct {
	older, newer int32 // -1 at the ends
	value        V
}

func newLRU[K comparable, V any](limit int) *lru[K, V] {
	return &lru[K, V]{table: newTable[K, used[V]](limit), oldest: -1, newest: -1}
}

// use returns the value of k and whether it is new, and so the zero value. The
// pointer is good until the next call.
func (l *lru[K, V]) use(k *K, hash uint64) (v *V, isNew bool) {
	i := l.table.find(k, hash)
	if i == l.newest && i >= 0 {
		return &l.table.at(i).value, false
	}
	if isNew = i < 0; isNew {
		if l.table.full() {
			l.evicted++
			old := l.oldest
			l.unlink(l.table.at(old))
			l.table.remove(old)
		}
		i, _ = l.table.put(k, hash)
	} else {
		l.unlink(l.table.at(i))
	}
	u := l.table.at(i)
	u.older, u.newer = l.newest, -1
	if l.newest >= 0 {
		l.table.at(l.newest).newer = i
	} else {
		l.oldest = i
	}
	l.newest = i
	return &u.value, isNew
}

// peek returns the value of k, nil when there is none, and does not count as use.
func (l *lru[K, V]) peek(k *K, hash uint64) *V {
	if i := l.table.find(k, hash); i >= 0 {
		return &l.table.at(i).value
	}
	return nil
}

// reset forgets all.
func (l *lru[K, V]) reset() {
	for l.oldest >= 0 {
		i := l.oldest
		l.unlink(l.table.at(i))
		l.table.remove(i)
	}
}

func (l *lru[K, V]) unlink(u *used[V]) {
	if u.older >= 0 {
		l.table.at(u.older).newer = u.newer
	} else {
		l.oldest = u.newer
	}
	if u.newer >= 0 {
		l.table.at(u.newer).older = u.older
	} else {
		l.newest = u.older
	}
}
