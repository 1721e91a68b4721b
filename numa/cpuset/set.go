package cpuset

import (
	"fmt"
	"iter"
	"math/bits"
	"slices"
)

// MaxID is the largest number a Set holds: the kernel is built for at most
// 8192 CPUs (NR_CPUS_RANGE_END on x86) and fewer memory nodes.
const MaxID = 8191

const wordBits = 64

// Set is an immutable set of CPU or memory node numbers between 0 and MaxID.
// The zero value is the empty set. Compare sets with Equal.
type Set struct {
	// words holds id i in bit i%64 of words[i/64]. The last word is never
	// zero, so that equal sets have equal words; nobody writes to it after
	// the set has been handed out.
	words []uint64
}

// Of returns the set of the given ids. Like indexing an array, it panics if an
// id is negative or above MaxID; use Parse for text from outside.
func Of(ids ...int) Set {
	return Collect(slices.Values(ids))
}

// Range returns the set of all ids from first to last, both included. It is
// empty if last < first, and panics as Of does.
func Range(first, last int) Set {
	if last < first {
		return Set{}
	}
	checkID(first)
	checkID(last)
	words := make([]uint64, last/wordBits+1)
	fill(words, first, last)
	return Set{words}
}

// Collect returns the set of the ids in seq. It panics as Of does.
func Collect(seq iter.Seq[int]) Set {
	var words []uint64
	for id := range seq {
		checkID(id)
		words = grow(words, id)
		words[id/wordBits] |= 1 << (id % wordBits)
	}
	return Set{words}
}

func checkID(id int) {
	if id < 0 || id > MaxID {
		panic(fmt.Sprintf("cpuset: id %d outside 0-%d", id, MaxID))
	}
}

// grow returns words with room for id.
func grow(words []uint64, id int) []uint64 {
	if missing := id/wordBits + 1 - len(words); missing > 0 {
		words = append(words, make([]uint64, missing)...)
	}
	return words
}

// fill sets the bits first to last, a word at a time; words must hold them.
func fill(words []uint64, first, last int) {
	for w := first / wordBits; w <= last/wordBits; w++ {
		mask := ^uint64(0)
		if w == first/wordBits {
			mask &= ^uint64(0) << (first % wordBits)
		}
		if w == last/wordBits {
			mask &= ^uint64(0) >> (wordBits - 1 - last%wordBits)
		}
		words[w] |= mask
	}
}

// trimmed makes a Set of words, without zero words at the end.
func trimmed(words []uint64) Set {
	n := len(words)
	for n > 0 && words[n-1] == 0 {
		n--
	}
	if n == 0 {
		return Set{}
	}
	return Set{words[:n:n]}
}

// Contains reports whether id is in s. It is false for any number that no set
// can hold.
func (s Set) Contains(id int) bool {
	return id >= 0 && id/wordBits < len(s.words) && s.words[id/wordBits]>>(id%wordBits)&1 != 0
}

// Len returns how many ids are in s.
func (s Set) Len() int {
	n := 0
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// IsEmpty reports whether no id is in s.
func (s Set) IsEmpty() bool { return len(s.words) == 0 }

// Min returns the smallest id in s, or -1 if s is empty.
func (s Set) Min() int {
	for i, w := range s.words {
		if w != 0 {
			return i*wordBits + bits.TrailingZeros64(w)
		}
	}
	return -1
}

// Max returns the largest id in s, or -1 if s is empty.
func (s Set) Max() int {
	if s.IsEmpty() {
		return -1
	}
	last := len(s.words) - 1
	return last*wordBits + bits.Len64(s.words[last]) - 1
}

// All iterates over the ids of s in ascending order.
func (s Set) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, w := range s.words {
			for ; w != 0; w &= w - 1 {
				if !yield(i*wordBits + bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}

// Equal reports whether s and t hold the same ids.
func (s Set) Equal(t Set) bool { return slices.Equal(s.words, t.words) }

// IsSubset reports whether every id of s is in t.
func (s Set) IsSubset(t Set) bool {
	if len(s.words) > len(t.words) {
		return false
	}
	for i, w := range s.words {
		if w&^t.words[i] != 0 {
			return false
		}
	}
	return true
}

// Intersects reports whether s and t have an id in common.
func (s Set) Intersects(t Set) bool {
	for i := range min(len(s.words), len(t.words)) {
		if s.words[i]&t.words[i] != 0 {
			return true
		}
	}
	return false
}

// Union returns the ids that are in s, in t or in both.
func (s Set) Union(t Set) Set {
	if len(s.words) < len(t.words) {
		s, t = t, s
	}
	if t.IsEmpty() {
		return s
	}
	words := slices.Clone(s.words)
	for i, w := range t.words {
		words[i] |= w
	}
	return Set{words}
}

// Intersect returns the ids that are in both s and t.
func (s Set) Intersect(t Set) Set {
	words := make([]uint64, min(len(s.words), len(t.words)))
	for i := range words {
		words[i] = s.words[i] & t.words[i]
	}
	return trimmed(words)
}

// Difference returns the ids of s that are not in t.
func (s Set) Difference(t Set) Set {
	if !s.Intersects(t) {
		return s
	}
	words := slices.Clone(s.words)
	for i := range min(len(words), len(t.words)) {
		words[i] &^= t.words[i]
	}
	return trimmed(words)
}

// Overlap returns how many ids are in both s and t.
func (s Set) Overlap(t Set) int {
	n := 0
	for i := range min(len(s.words), len(t.words)) {
		n += bits.OnesCount64(s.words[i] & t.words[i])
	}
	return n
}
