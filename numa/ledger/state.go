package ledger

import (
	"slices"
	"strings"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// state is what the file says.
type state struct {
	boot, topology string
	generation     uint64
	counters       Counters
	demand         numa.Demand
	rows           []row // ascending by bundle
	// given and taken are the CPUs that ceased to be, and became, owned or
	// idle by the changes to this state.
	given, taken cpuset.Set
	// root is where the bundle of a new entry lies, "" if it is known.
	root string
}

// row is an entry and, unless it has changed, its line with the line feed:
// most rows of a ledger are written as they were read.
type row struct {
	Entry
	line string
}

// entries are the entries of s.
func (s *state) entries() []Entry {
	entries := make([]Entry, len(s.rows))
	for i := range s.rows {
		entries[i] = s.rows[i].Entry
	}
	return entries
}

// others are the claims of all but one.
func (s *state) others(bundle string) []numa.Claim {
	claims := make([]numa.Claim, 0, len(s.rows))
	for i := range s.rows {
		if s.rows[i].Bundle != bundle {
			claims = append(claims, s.rows[i].Claim)
		}
	}
	return claims
}

// find tells where a bundle's row is, or would be.
func (s *state) find(bundle string) (int, bool) {
	return slices.BinarySearchFunc(s.rows, bundle, func(r row, bundle string) int {
		return strings.Compare(r.Bundle, bundle)
	})
}

// put enters or replaces an entry.
func (s *state) put(e Entry) {
	i, ok := s.find(e.Bundle)
	if ok {
		s.give(&s.rows[i].Claim)
		s.rows[i] = row{Entry: e}
	} else {
		s.rows = slices.Insert(s.rows, i, row{Entry: e})
	}
	s.taken = s.taken.Union(e.Owned).Union(e.Idle)
}

// replace puts a claim of an owner's in the place of the one that it has, if it
// has one.
func (s *state) replace(bundle string, c numa.Claim, owner Process) {
	e := Entry{Bundle: bundle, Claim: c, Owner: owner}
	if i, ok := s.find(bundle); ok && s.rows[i].Owner == owner {
		e.Init = s.rows[i].Init
	}
	s.put(e)
}

// drop removes an entry and tells whether there was one.
func (s *state) drop(bundle string) bool {
	i, ok := s.find(bundle)
	if ok {
		s.give(&s.rows[i].Claim)
		s.rows = slices.Delete(s.rows, i, i+1)
	}
	return ok
}

// dropDead removes the entries of which no process is alive, and tells how
// many there were. An init that was entered after the dead were looked for
// keeps its entry.
func (s *state) dropDead(dead map[Process]bool) (dropped int) {
	if len(dead) == 0 {
		return 0
	}
	before := len(s.rows)
	s.rows = slices.DeleteFunc(s.rows, func(r row) bool {
		gone := dead[r.Owner] && (r.Init.Pid == 0 || dead[r.Init])
		if gone {
			s.give(&r.Claim)
		}
		return gone
	})
	return before - len(s.rows)
}

func (s *state) give(c *numa.Claim) {
	s.given = s.given.Union(c.Owned).Union(c.Idle)
}

// affected are the owners of shared claims that may use other CPUs since the
// changes to s: each once.
func (s *state) affected(t *numa.Topology) []Process {
	changed := s.given.Difference(s.taken).Union(s.taken.Difference(s.given))
	if changed.IsEmpty() {
		return nil
	}
	here := map[int]cpuset.Set{} // what changed of each node
	for _, n := range t.Nodes {
		if cpus := n.CPUs.Intersect(changed); !cpus.IsEmpty() {
			here[n.ID] = cpus
		}
	}
	var owners []Process
	known := map[Process]bool{}
	for i := range s.rows {
		e := &s.rows[i].Entry
		if !e.Owned.IsEmpty() || known[e.Owner] {
			continue
		}
		for node := range e.Nodes.All() {
			if here[node].Intersects(e.Granted) {
				known[e.Owner] = true
				owners = append(owners, e.Owner)
				break
			}
		}
	}
	return owners
}
