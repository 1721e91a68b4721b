package task

import taskv3 "github.com/containerd/containerd/api/runtime/task/v3"

// maxTombstones bounds how many deleted containers are remembered: a pod's
// shim may see thousands of restarts.
const maxTombstones = 32

// tombstones remember how the containers that were deleted last had ended, so
// that a Delete that is sent again, because its answer was lost or late, has
// the same answer. containerd never uses a container id twice in one shim,
// but for Create after a failed Create.
type tombstones struct {
	order []string // oldest first
	byID  map[string]*taskv3.DeleteResponse
}

func (t *tombstones) remember(id string, how *taskv3.DeleteResponse) {
	t.forget(id)
	if len(t.order) == maxTombstones {
		t.forget(t.order[0])
	}
	if t.byID == nil {
		t.byID = map[string]*taskv3.DeleteResponse{}
	}
	t.order, t.byID[id] = append(t.order, id), how
}

func (t *tombstones) forget(id string) {
	if _, ok := t.byID[id]; !ok {
		return
	}
	delete(t.byID, id)
	for i, o := range t.order {
		if o == id {
			t.order = append(t.order[:i:i], t.order[i+1:]...)
			return
		}
	}
}

func (t *tombstones) find(id string) (*taskv3.DeleteResponse, bool) {
	how, ok := t.byID[id]
	return how, ok
}
