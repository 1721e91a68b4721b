package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/test/rig"
)

// numaNode is a memory node with CPUs of this machine.
type numaNode struct {
	id     int
	cpus   cpuset.Set // that are online
	memory int        // MiB
}

// sysDevices has what the kernel tells of CPUs and nodes. The tests read it
// for themselves: what the shim made of it is what they judge.
const sysDevices = "/sys/devices/system"

// requireNUMA begins a test that needs two nodes with CPUs and memory.
func requireNUMA(t *testing.T) (*scene, []numaNode) {
	t.Helper()
	if !ours() {
		skip(t, "placement is this project's")
	}
	nodes := numaNodes(t)
	if len(nodes) < 2 {
		skip(t, "needs a machine with two NUMA nodes, real or as in ../vm")
	}
	return begin(t), nodes
}

// requireOwnMachine skips what would harm others on the machine.
func requireOwnMachine(t *testing.T) {
	t.Helper()
	if !*ownMachineFlag {
		skip(t, "needs a machine of its own: -own-machine says that this is one")
	}
}

func numaNodes(t *testing.T) (nodes []numaNode) {
	t.Helper()
	for id := range readSet(t, sysDevices+"/node/online").All() {
		dir := fmt.Sprintf("%s/node/node%d", sysDevices, id)
		n := numaNode{id: id, cpus: readSet(t, dir+"/cpulist")}
		for line := range strings.Lines(readText(t, dir+"/meminfo")) {
			if f := strings.Fields(line); len(f) > 3 && f[2] == "MemTotal:" {
				kib, err := strconv.Atoi(f[3])
				if err != nil {
					t.Fatal(err)
				}
				n.memory = kib >> 10
			}
		}
		if !n.cpus.IsEmpty() && n.memory > 0 {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// coresOf are all the threads of the cores that the CPUs are of.
func coresOf(t *testing.T, cpus cpuset.Set) (all cpuset.Set) {
	t.Helper()
	for cpu := range cpus.All() {
		all = all.Union(readSet(t, fmt.Sprintf("%s/cpu/cpu%d/topology/thread_siblings_list", sysDevices, cpu)))
	}
	return all
}

func readText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func readSet(t *testing.T, path string) cpuset.Set {
	t.Helper()
	set, err := cpuset.Parse(readText(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// placed is what placement.json tells of a container.
type placed struct {
	Nodes  cpuset.Set `json:"nodes"`
	CPUs   cpuset.Set `json:"cpus"`
	Mems   cpuset.Set `json:"mems"`
	Kept   string     `json:"kept"`
	Fault  string     `json:"fault"`
	Reason string     `json:"reason"`
}

func (c *container) placed() (p placed, err error) {
	text, err := os.ReadFile(filepath.Join(c.daemon.Bundle(c.ID()), "placement.json"))
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(text, &p)
}

// inForce waits until the kernel does with every thread of the container what
// placement.json says, and as holds of it, and returns it. It may take a
// moment: containers that share CPUs learn that others own some of them.
func (c *container) inForce(as string, holds func(placed) bool) (p placed) {
	c.t.Helper()
	var err error
	if !rig.Eventually(bound, func() bool {
		if p, err = c.placed(); err == nil {
			err = c.compare(p)
		}
		if err == nil && !holds(p) {
			err = fmt.Errorf("it is not %s", as)
		}
		return err == nil
	}) {
		c.t.Errorf("%s: %v\nplacement: %+v", c.ID(), err, p)
	}
	return p
}

// compare holds the kernel's view of a container against p.
func (c *container) compare(p placed) error {
	cpus, err := c.cpuset([2]string{"cpuset.effective_cpus", "cpuset.cpus.effective"})
	if err != nil {
		return err
	}
	if !cpus.Equal(p.CPUs) {
		return fmt.Errorf("its cgroup has CPUs %s", cpus)
	}
	mems, err := c.cpuset([2]string{"cpuset.effective_mems", "cpuset.mems.effective"})
	if err != nil {
		return err
	}
	if !p.Mems.IsEmpty() && !mems.Equal(p.Mems) {
		return fmt.Errorf("its cgroup has nodes %s", mems)
	}
	processes, err := c.task.Pids(c.ctx)
	if err != nil {
		return err
	}
	for _, process := range processes {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", process.Pid))
		if err != nil {
			return err
		}
		for _, thread := range threads {
			if err := compareThread(thread, p.CPUs, mems); err != nil {
				return err
			}
		}
	}
	return nil
}

func compareThread(status string, cpus, mems cpuset.Set) error {
	text, err := os.ReadFile(status)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		want := cpus
		switch key {
		case "Cpus_allowed_list":
		case "Mems_allowed_list":
			want = mems
		default:
			continue
		}
		if got, err := cpuset.Parse(value); err != nil || !got.Equal(want) {
			return fmt.Errorf("%s says %s: %s, %v", status, key, strings.TrimSpace(value), err)
		}
	}
	return nil
}

func (c *container) cpuset(file [2]string) (cpuset.Set, error) {
	text, err := rig.ReadCgroup("cpuset", c.cgroup(), file)
	if err != nil {
		return cpuset.Set{}, err
	}
	return cpuset.Parse(text)
}

// anonymous is the container's anonymous memory by node, in no unit of its
// own: only the parts of the whole are compared.
func (c *container) anonymous() map[int]int {
	c.t.Helper()
	const file = "memory.numa_stat"
	text, err := rig.ReadCgroup("memory", c.cgroup(), [2]string{file, file})
	c.must(err)
	byNode := map[int]int{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "anon" && !strings.HasPrefix(fields[0], "hierarchical_anon=") {
			continue
		}
		for _, f := range fields[1:] {
			var node, amount int
			if _, err := fmt.Sscanf(f, "N%d=%d", &node, &amount); err == nil {
				byNode[node] = amount
			}
		}
	}
	return byNode
}

// home is the part of the container's anonymous memory that is on the nodes.
func (c *container) home(nodes cpuset.Set) float64 {
	c.t.Helper()
	here, all := 0, 0
	for node, amount := range c.anonymous() {
		all += amount
		if nodes.Contains(node) {
			here += amount
		}
	}
	if all == 0 {
		c.t.Errorf("%s has no anonymous memory", c.ID())
	}
	return float64(here) / float64(max(all, 1))
}
