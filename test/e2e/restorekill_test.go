package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"

	"containerd-shim-numa-v1/test/rig"
)

// TestShimKilledDuringRestore kills the shim at a random moment of a restore:
// nothing is left, and the same checkpoint can be restored afterwards.
func TestShimKilledDuringRestore(t *testing.T) {
	if ours() && *engineFlag != inProcess {
		skip(t, "criu, killed with an OCI runtime, leaves mounts on the host, of which nobody can tell whose they are")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 0))
	for i := range *shimKillsFlag {
		moment := time.Duration(moments.Int64N(int64(latestKill)))
		t.Run(fmt.Sprint(i), func(t *testing.T) { killRestoreAt(t, moment) })
	}
}

func killRestoreAt(t *testing.T, moment time.Duration) {
	s := beginWithCriu(t, imagePaths())
	s.gap, s.shimKilled = true, true
	// It writes no file: what the restored container had written would not be
	// what the checkpoint knows of.
	c := s.run([]string{"/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"})
	c.counts(1)
	images, err := c.checkpoint(&options.CheckpointOptions{Exit: true})
	s.must(err)
	c.status()
	c.delete()
	last := c.numbers()

	killed := c.restore(images)
	hit := make(chan bool, 1)
	go func() {
		time.Sleep(moment)
		hit <- killShim(c.ID())
	}()
	err = killed.Start(s.ctx)
	t.Logf("killed after %s: %t; start: %v", moment, <-hit, err)
	var again *container
	// containerd cleans up after a dead shim on its own time.
	if !rig.Eventually(bound, func() bool {
		killed.task.Delete(s.ctx, containerd.WithProcessKill)
		again, err = c.tryRestore(images)
		return err == nil
	}) {
		t.Fatalf("cannot be restored again: %v", err)
	}
	s.must(again.Start(s.ctx))
	again.counts(3)
	if first := again.numbers()[0]; first != last[len(last)-1]+1 {
		t.Errorf("counted to %d, then from %d", last[len(last)-1], first)
	}
	again.stop()
	// criu, killed, leaves an empty directory.
	left, err := filepath.Glob("/tmp/.criu.mntns.*")
	s.must(err)
	for _, dir := range left {
		os.Remove(dir)
	}
}
