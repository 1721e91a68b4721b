package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"containerd-shim-numa-v1/test/rig"
)

// TestManyLayers reads every file of the many-layered image: each layer's
// additions, overrides, deletions and owners.
func TestManyLayers(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/payload", "tree", "/data"}, withImage(s.layered))
	want(t, "exit status", c.finish(), 0)
	want(t, "tree inside", c.stdout.String(), s.tree.String())
}

// mappedRoot is the host's id of the container's root in these tests.
const mappedRoot = 100000

// TestManyLayersInAUserNamespace does so with the layers idmapped, and looks
// from both sides at who owns what: inside, everything has the image's owners;
// on the upper layer, everything has them shifted.
func TestManyLayersInAUserNamespace(t *testing.T) {
	s := begin(t)
	c := s.run([]string{"/bin/sh", "-c", `
		/payload ids | grep -v pid
		/payload tree /data
		echo appended >> /data/shared
		echo new > /data/new
		chown 1000:1000 /data/new
		echo done`}, withImage(s.layered), withUserNamespace(mappedRoot))
	want(t, "exit status", c.status(), 0)
	mapping := fmt.Sprintf("uid_map 0 %d 65536\ngid_map 0 %d 65536\n", mappedRoot, mappedRoot)
	c.wantOutput(mapping + s.tree.String() + "done\n")
	want(t, "errors", c.stderr.String(), "")

	upper := filepath.Join(s.upperDir(c.ID()), "data")
	last := uint32(*layersFlag - 1)
	s.wantOwner(filepath.Join(upper, "shared"), mappedRoot+last, mappedRoot+last)
	s.wantOwner(filepath.Join(upper, "new"), mappedRoot+1000, mappedRoot+1000)
	c.remove()
}

func (s *scene) wantOwner(path string, uid, gid uint32) {
	s.t.Helper()
	owner, err := rig.Owner(path)
	s.must(err)
	want(s.t, "owner of "+path, owner, fmt.Sprint(uid, ":", gid))
}

// TestUserNamespacesDoNotMeet runs two mappings of one image at once.
func TestUserNamespacesDoNotMeet(t *testing.T) {
	s := begin(t)
	script := []string{"/bin/sh", "-c", "stat -c %u /data/added-002 && /payload wait"}
	a := s.run(script, withImage(s.layered), withUserNamespace(100000))
	b := s.run(script, withImage(s.layered), withUserNamespace(300000))
	for host, c := range map[int]*container{100000: a, 300000: b} {
		c.awaitOutput("ready")
		want(t, "owner inside", strings.Fields(c.stdout.String())[0], "2")
		s.wantOwner(fmt.Sprintf("/proc/%d/root/data/added-002", c.Pid()), uint32(host+2), uint32(host+1002))
		s.wantOwner(fmt.Sprintf("/proc/%d", c.Pid()), uint32(host), uint32(host))
		c.stop()
	}
}

func TestExecInAUserNamespace(t *testing.T) {
	s := begin(t)
	c := s.run(idle, withImage(s.layered), withUserNamespace(mappedRoot))
	p := c.exec("ids", []string{"/bin/sh", "-c", "id -u; /payload ids | grep uid_map"})
	want(t, "exit status", p.status(), 0)
	p.delete()
	want(t, "ids", p.stdout.String(), fmt.Sprintf("0\nuid_map 0 %d 65536\n", mappedRoot))
	c.stop()
}

// TestCtrUserNamespace is the same by a person's command.
func TestCtrUserNamespace(t *testing.T) {
	s := begin(t)
	mapping := fmt.Sprintf("0:%d:65536", mappedRoot)
	r := s.daemon.RunCtr(s.ctx, "run", "--rm", "--runtime", *runtimeFlag, "--snapshotter", "overlayfs",
		"--uidmap", mapping, "--gidmap", mapping, "--remap-labels",
		s.layered.Name(), s.newID(), "/payload", "tree", "/data")
	if r.Err != nil {
		t.Fatalf("%v: %s", r.Err, r.Stderr)
	}
	want(t, "tree inside", r.Stdout, s.tree.String())
}
