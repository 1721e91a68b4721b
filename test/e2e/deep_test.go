package e2e

import (
	"os"
	"strings"
	"testing"

	"containerd-shim-numa-v1/test/rig"
)

// mostLayers is what overlayfs takes at most (OVL_MAX_STACK).
const mostLayers = 500

// TestMostLayers runs an image of as many layers as overlayfs can stack. Their
// names are several times what mount(2) takes.
func TestMostLayers(t *testing.T) {
	s := beginApart(t, "deep", "")
	image, tree, err := s.daemon.ImportLayered(s.ctx, "rig.test/deep:1", mostLayers)
	s.must(err)
	s.tree = tree
	for name, opts := range map[string][]option{"plain": nil, "user namespace": {withUserNamespace(mappedRoot)}} {
		t.Run(name, func(t *testing.T) {
			if name != "plain" && !shared.idmaps {
				skip(t, "containerd's client changes the owners in one more layer")
			}
			s := &scene{fixture: s.fixture, t: t, ctx: s.ctx}
			defer s.removeAll()
			c := s.run([]string{"/bin/sh", "-c", "/payload tree /data && echo mine >/data/shared"}, append(opts, withImage(image))...)
			want(t, "exit status", c.status(), 0)
			c.wantOutput(s.tree.String())
			s.wantLowers(c.ID())
			c.remove()
		})
	}
}

// wantLowers checks that the snapshot of a container has as many layers as the
// test means, with names of more than a page.
func (s *scene) wantLowers(id string) {
	s.t.Helper()
	mounts, err := s.daemon.Client().SnapshotService(rig.Snapshotter).Mounts(s.ctx, id)
	s.must(err)
	for _, o := range mounts[0].Options {
		if list, ok := strings.CutPrefix(o, "lowerdir="); ok {
			want(s.t, "layers", strings.Count(list, ":")+1, mostLayers)
			if page := os.Getpagesize(); len(list) <= page {
				s.t.Errorf("the layers' names are %d bytes, no more than a page", len(list))
			}
			return
		}
	}
	s.t.Errorf("no layers in %+v", mounts)
}
