package ledger

import "containerd-shim-numa-v1/numa"

// arrive adds a claim to the demand. What chooses its node itself counts: not
// a container of a pod that has chosen one as a whole, nor one that is left
// alone.
func (s *state) arrive(c numa.Claim) {
	if c.Nodes.IsEmpty() {
		return
	}
	if c.Pod != "" && !c.Sandbox {
		for i := range s.rows {
			if s.rows[i].Sandbox && s.rows[i].Pod == c.Pod {
				return
			}
		}
	}
	s.demand = s.demand.Add(c)
}
