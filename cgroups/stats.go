package cgroups

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Stats returns the usage of the container: a *stats.Metrics of cgroup v1 or
// v2 as containerd's runc shim gives it, to be passed to typeurl.MarshalAny.
// Memory is in bytes; CPU time in nanoseconds on v1, in microseconds on v2.
//
// After Final it returns what Final read, which the caller must not modify.
// Files that do not exist leave their fields zero, so that a cgroup that was
// removed before Final has no usage.
func (c *Cgroup) Stats() (proto.Message, error) {
	if final := c.final.Load(); final != nil {
		return *final, nil
	}
	return c.read()
}

// Final reads the usage a last time and keeps it for Stats. Call it when the
// container's init has exited, before the cgroup is removed: clients ask
// afterwards, CRI to learn whether exit code 137 was an OOM kill.
//
// On an error nothing is kept.
func (c *Cgroup) Final() error {
	metrics, err := c.read()
	if err != nil {
		return err
	}
	c.final.Store(&metrics)
	return nil
}

func (c *Cgroup) read() (proto.Message, error) {
	var metrics proto.Message
	var err error
	if c.v2 {
		metrics, err = c.readV2()
	} else {
		metrics, err = c.readV1()
	}
	if err != nil {
		return nil, fmt.Errorf("read usage of cgroup: %w", err)
	}
	return metrics, nil
}
