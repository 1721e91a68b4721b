package native

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
)

// Execs that are being started when init dies fail, and what they leave does
// not keep init from finishing its exit.
func TestExecsAgainstDyingInit(t *testing.T) {
	const rounds, execs = 5, 8
	for round := range rounds {
		c := run(t, specOf(newID(), "sleep", "1000"))
		var starting sync.WaitGroup
		for range execs {
			starting.Go(func() {
				child, err := c.Exec(t.Context(), processSpec("sleep", "1000"), task.Files{})
				if err == nil {
					wait(child).Status(t)
				}
			})
		}
		time.Sleep(time.Duration(round) * 10 * time.Millisecond)
		must(t, c.init.Signal(unix.SIGKILL))
		if s := c.init.Status(t); s != 137 {
			t.Errorf("exit status of init %d", s)
		}
		starting.Wait()
		c.remove()
	}
	if zombies := zombieChildren(t); len(zombies) > 0 {
		t.Errorf("zombies: %v", zombies)
	}
}
