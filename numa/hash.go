package numa

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
)

// hashLen is the length of Topology.Hash before hexadecimal: enough to tell
// apart the few topologies that one host ever has.
const hashLen = 8

// hash is what Topology.Hash is to be. JSON is a function of the value: it
// writes fields in the order of their declaration, and there is no map.
func (t *Topology) hash() string {
	hashed := *t
	hashed.Hash = ""
	hashed.Nodes = slices.Clone(t.Nodes)
	for i := range hashed.Nodes {
		hashed.Nodes[i].Memory = 0
	}
	text, err := json.Marshal(&hashed)
	if err != nil {
		panic(err) // sets and numbers cannot fail
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:hashLen])
}
