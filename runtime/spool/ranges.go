package spool

import "slices"

// span is the sequence numbers from first to last, both included.
type span struct{ first, last uint64 }

func (s span) len() uint64 { return s.last - s.first + 1 }

// spans is a set of sequence numbers: sorted, disjoint, not adjacent.
type spans []span

// index is that of the first span that ends at or after seq.
func (s spans) index(seq uint64) int {
	i, _ := slices.BinarySearchFunc(s, seq, func(a span, seq uint64) int {
		if a.last < seq {
			return -1
		}
		return 1
	})
	return i
}

func (s spans) contains(seq uint64) bool {
	i := s.index(seq)
	return i < len(s) && s[i].first <= seq
}

// add makes s contain n.
func (s *spans) add(n span) {
	i := s.index(n.first - 1) // adjacent below counts
	j := i
	for j < len(*s) && (*s)[j].first <= n.last+1 {
		n.first = min(n.first, (*s)[j].first)
		n.last = max(n.last, (*s)[j].last)
		j++
	}
	*s = slices.Replace(*s, i, j, n)
}

// remove makes s not contain seq.
func (s *spans) remove(seq uint64) {
	i := s.index(seq)
	if i == len(*s) || (*s)[i].first > seq {
		return
	}
	var rest spans
	if r := (*s)[i]; r.first < seq {
		rest = append(rest, span{r.first, seq - 1})
	}
	if r := (*s)[i]; r.last > seq {
		rest = append(rest, span{seq + 1, r.last})
	}
	*s = slices.Replace(*s, i, i+1, rest...)
}

// removeBelow makes s not contain what is less than seq.
func (s *spans) removeBelow(seq uint64) {
	*s = slices.Delete(*s, 0, s.index(seq))
	if len(*s) > 0 {
		(*s)[0].first = max((*s)[0].first, seq)
	}
}

// missing returns what of n is not in s.
func (s spans) missing(n span) spans {
	var out spans
	for i := s.index(n.first); i < len(s) && s[i].first <= n.last; i++ {
		if s[i].first > n.first {
			out = append(out, span{n.first, s[i].first - 1})
		}
		if s[i].last >= n.last {
			return out
		}
		n.first = s[i].last + 1
	}
	return append(out, n)
}

// below counts the numbers in s less than seq.
func (s spans) below(seq uint64) uint64 {
	var n uint64
	for _, r := range s {
		if r.first >= seq {
			break
		}
		n += span{r.first, min(r.last, seq-1)}.len()
	}
	return n
}
