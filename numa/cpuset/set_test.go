package cpuset

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// model is the obvious set that Set must agree with.
type model map[int]bool

func (m model) set() Set {
	return Collect(func(yield func(int) bool) {
		for id := range m {
			if !yield(id) {
				return
			}
		}
	})
}

func randomModel(r *rand.Rand) model {
	m := model{}
	// Few large numbers beside many small ones: sets of different word
	// counts, and of word boundaries.
	limit := []int{3, 64, 65, 128, 200, MaxID + 1}[r.IntN(6)]
	for range r.IntN(80) {
		m[r.IntN(limit)] = true
	}
	return m
}

func TestOperationsAgreeWithMaps(t *testing.T) {
	const rounds = 3000
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range rounds {
		a, b := randomModel(r), randomModel(r)
		union, intersection, difference := model{}, model{}, model{}
		for id := range a {
			union[id] = true
			if b[id] {
				intersection[id] = true
			} else {
				difference[id] = true
			}
		}
		for id := range b {
			union[id] = true
		}
		sa, sb := a.set(), b.set()
		fail := func(what string) {
			t.Helper()
			t.Errorf("seed %d: %s of %q and %q", seed, what, sa, sb)
		}
		agree(t, sa, a)
		agree(t, sa.Union(sb), union)
		agree(t, sa.Intersect(sb), intersection)
		agree(t, sa.Difference(sb), difference)
		if sa.IsSubset(sb) != (len(difference) == 0) {
			fail("IsSubset")
		}
		if sa.Intersects(sb) != (len(intersection) != 0) {
			fail("Intersects")
		}
		if sa.Overlap(sb) != len(intersection) {
			fail("Overlap")
		}
		if sa.Equal(sb) != (len(a) == len(b) && len(difference) == 0) {
			fail("Equal")
		}
		// The operands must not have changed.
		agree(t, sa, a)
		agree(t, sb, b)
		// Laws that hold whatever the model says.
		if !sa.Difference(sb).Union(sa.Intersect(sb)).Equal(sa) {
			fail("(a-b) + (a*b) == a")
		}
		if !sa.Union(sb).Equal(sb.Union(sa)) || !sa.Intersect(sb).Equal(sb.Intersect(sa)) {
			fail("commutativity")
		}
		if t.Failed() {
			return
		}
	}
}

// agree checks everything that can be asked of s against m.
func agree(t *testing.T, s Set, m model) {
	t.Helper()
	want := make([]int, 0, len(m))
	for id := range m {
		want = append(want, id)
	}
	slices.Sort(want)
	if got := slices.AppendSeq([]int{}, s.All()); !slices.Equal(got, want) {
		t.Errorf("All of %q: got %v, want %v", s, got, want)
	}
	if s.Len() != len(want) || s.IsEmpty() != (len(want) == 0) {
		t.Errorf("%q: Len %d, IsEmpty %t, want %d ids", s, s.Len(), s.IsEmpty(), len(want))
	}
	wantMin, wantMax := -1, -1
	if len(want) > 0 {
		wantMin, wantMax = want[0], want[len(want)-1]
	}
	if s.Min() != wantMin || s.Max() != wantMax {
		t.Errorf("%q: Min %d, Max %d, want %d, %d", s, s.Min(), s.Max(), wantMin, wantMax)
	}
	for _, id := range []int{-1, 0, 1, 63, 64, 65, 127, 128, MaxID, MaxID + 1, wantMin, wantMax, wantMax + 1} {
		if s.Contains(id) != m[id] {
			t.Errorf("%q: Contains(%d) is %t", s, id, s.Contains(id))
		}
	}
	// Not trimmed sets would break Equal, Max and IsEmpty.
	if n := len(s.words); n > 0 && s.words[n-1] == 0 {
		t.Errorf("%q: the last word is zero", s)
	}
}

func TestRange(t *testing.T) {
	edges := []int{0, 1, 62, 63, 64, 65, 127, 128, 129, MaxID - 1, MaxID}
	for _, first := range edges {
		for _, last := range edges {
			m := model{}
			for id := first; id <= last; id++ {
				m[id] = true
			}
			agree(t, Range(first, last), m)
		}
	}
}

func TestIDsOutsidePanic(t *testing.T) {
	for _, build := range map[string]func(){
		"negative":       func() { Of(-1) },
		"too large":      func() { Of(MaxID + 1) },
		"negative range": func() { Range(-1, 2) },
		"large range":    func() { Range(0, MaxID+1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			build()
		}()
	}
}

func TestAllStops(t *testing.T) {
	seen := 0
	for range Range(0, 100).All() {
		seen++
		if seen == 3 {
			break
		}
	}
	if seen != 3 {
		t.Errorf("iterated %d times", seen)
	}
}

func TestQuestionsDoNotAllocate(t *testing.T) {
	a, b := Range(0, 127), Range(32, 47)
	allocs := testing.AllocsPerRun(100, func() {
		if !b.IsSubset(a) || !a.Intersects(b) || a.Equal(b) || a.Len() != 128 || a.Overlap(b) != 16 || !a.Contains(5) || a.Max() != 127 {
			t.Fatal("wrong answer")
		}
		for id := range a.All() {
			_ = id
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func ExampleSet() {
	online, _ := Parse("0-7,16-23")
	node, _ := Parse("4-7,20-23\n")
	fmt.Println(online.Difference(node), node.IsSubset(online), node.Len())
	// Output: 0-3,16-19 true 8
}
