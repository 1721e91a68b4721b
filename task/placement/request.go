package placement

import (
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// The annotations by which containerd's CRI plugin tells what a container is
// (its package annotations). The totals of a pod are on its sandbox only.
const (
	criType      = "io.kubernetes.cri.container-type"
	criSandboxID = "io.kubernetes.cri.sandbox-id"

	criShares = "io.kubernetes.cri.sandbox-cpu-shares"
	criQuota  = "io.kubernetes.cri.sandbox-cpu-quota"
	criPeriod = "io.kubernetes.cri.sandbox-cpu-period"
	criMemory = "io.kubernetes.cri.sandbox-memory"

	typeSandbox = "sandbox"
)

// draPrefix begins the variables in which the CPU driver of Kubernetes'
// dynamic resource allocation gives a container its CPUs.
const draPrefix = "DRA_CPUSET_"

const (
	milliPerCPU  = 1000
	sharesPerCPU = 1024
	// minShares is what kubelet gives for no request: the kernel's least.
	minShares = 2
	// defaultPeriod is the kernel's of a CPU quota, in microseconds.
	defaultPeriod = 100_000
	// mostCPUs bounds what is believed of a spec.
	mostCPUs = cpuset.MaxID + 1

	// kubelet writes 1000 - 1000·request/capacity into the oom_score_adj of a
	// container of the Burstable class, within these bounds
	// (pkg/kubelet/qos/policy.go).
	leastBurstableOOM = 3
	mostBurstableOOM  = 999
	oomScale          = 1000
)

// machine is what the request of a container depends on besides its spec.
type machine struct {
	topology *numa.Topology
	// sysfs has the container's devices.
	sysfs fs.FS
	// cpus and mems are what the cgroup above the container's has.
	cpus, mems cpuset.Set
}

// asked is what a container asks for.
type asked struct {
	numa.Request
	// sandbox: the request is the pod's, not the container's own.
	sandbox bool
	// keep says why its CPUs stay as they are, "" if they need not.
	// exclusive: somebody else has made them the container's own.
	keep      string
	exclusive bool
	// keepMems: somebody else has said where its memory is to be.
	keepMems bool
	missed   []string
}

// ask reads what a container asks for. An error says why it cannot be placed.
func ask(spec *specs.Spec, s Settings, m machine) (asked, error) {
	wishes, err := s.wishes()
	if err != nil {
		return asked{}, err
	}
	a := asked{Request: wishes, sandbox: spec.Annotations[criType] == typeSandbox}
	a.Pod = spec.Annotations[criSandboxID]
	r := resourcesOf(spec)
	if err := a.grant(r, spec, m); err != nil {
		return asked{}, err
	}
	a.size(r, spec, m.topology)
	a.bound(s.MaxDedicated)
	a.Devices = deviceNodes(m.sysfs, spec)
	a.stay(r, spec)
	return a, nil
}

// resourcesOf are a spec's resources, a pod's totals for its sandbox. Memory
// and CPU are never nil.
func resourcesOf(spec *specs.Spec) specs.LinuxResources {
	var r specs.LinuxResources
	if spec.Linux != nil && spec.Linux.Resources != nil {
		r = *spec.Linux.Resources
	}
	cpu, memory := specs.LinuxCPU{}, specs.LinuxMemory{}
	if r.CPU != nil {
		cpu = *r.CPU
	}
	if r.Memory != nil {
		memory = *r.Memory
	}
	r.CPU, r.Memory = &cpu, &memory
	if spec.Annotations[criType] != typeSandbox {
		return r
	}
	if n, ok := positive(spec.Annotations[criShares]); ok {
		shares := uint64(n)
		cpu.Shares = &shares
	}
	if n, ok := positive(spec.Annotations[criQuota]); ok {
		cpu.Quota = &n
	}
	if n, ok := positive(spec.Annotations[criPeriod]); ok {
		period := uint64(n)
		cpu.Period = &period
	}
	if n, ok := positive(spec.Annotations[criMemory]); ok {
		memory.Limit = &n
	}
	return r
}

func positive(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n > 0
}

// grant finds the CPUs and memory nodes that the container may use.
func (a *asked) grant(r specs.LinuxResources, spec *specs.Spec, m machine) error {
	a.Granted = m.cpus.Intersect(m.topology.Online)
	if r.CPU.Cpus != "" {
		cpus, err := cpuset.Parse(r.CPU.Cpus)
		if err != nil {
			return fmt.Errorf("linux.resources.cpu.cpus: %w", err)
		}
		a.Granted = a.Granted.Intersect(cpus)
	}
	if a.Granted.IsEmpty() {
		return fmt.Errorf("none of its CPUs %q is among those of the cgroup above, %s, and online", r.CPU.Cpus, m.cpus)
	}
	a.Mems = m.mems
	if r.CPU.Mems != "" {
		mems, err := cpuset.Parse(r.CPU.Mems)
		if err != nil {
			return fmt.Errorf("linux.resources.cpu.mems: %w", err)
		}
		// kubelet's memory manager gave them, or none of them is there.
		a.keepMems = spec.Annotations[criType] != "" || !mems.Intersects(m.mems)
		if mems = mems.Intersect(m.mems); !mems.IsEmpty() {
			a.Mems = mems
		}
	}
	if a.keepMems || spec.Linux != nil && spec.Linux.MemoryPolicy != nil {
		a.Memory = numa.LocalMemory
	}
	return nil
}

// size finds how much of the machine the container asks for.
func (a *asked) size(r specs.LinuxResources, spec *specs.Spec, t *numa.Topology) {
	kubernetes := spec.Annotations[criType] != ""
	limit := limitMilli(r.CPU)
	a.Milli = requestMilli(r.CPU, kubernetes)
	if a.Milli == 0 && !kubernetes {
		a.Milli = limit
	}
	a.Width = (limit + milliPerCPU - 1) / milliPerCPU
	if a.CPU == numa.Dedicated {
		a.Width = max(a.Width, (a.Milli+milliPerCPU-1)/milliPerCPU, 1)
	}
	a.Bytes = memoryBytes(r, spec, t)
	for _, h := range r.HugepageLimits {
		size, ok := pageSize(h.Pagesize)
		if !ok || h.Limit == 0 || h.Limit >= maxMemory {
			continue
		}
		if a.Hugepages == nil {
			a.Hugepages = map[int64]int64{}
		}
		a.Hugepages[size] = int64(h.Limit)
	}
}

// requestMilli is the inverse of what kubelet makes of a request. Outside of
// Kubernetes, the shares that a cgroup has from the beginning, which ctr always
// sends, ask for nothing.
func requestMilli(cpu *specs.LinuxCPU, kubernetes bool) int {
	if cpu.Shares == nil || *cpu.Shares <= minShares || !kubernetes && *cpu.Shares == sharesPerCPU {
		return 0
	}
	shares := min(*cpu.Shares, mostCPUs*sharesPerCPU)
	return int((shares*milliPerCPU + sharesPerCPU - 1) / sharesPerCPU)
}

// limitMilli is the CPU limit, 0 for none.
func limitMilli(cpu *specs.LinuxCPU) int {
	if cpu.Quota == nil || *cpu.Quota <= 0 {
		return 0
	}
	period := uint64(defaultPeriod)
	if cpu.Period != nil && *cpu.Period != 0 {
		period = *cpu.Period
	}
	milli := math.Ceil(float64(*cpu.Quota) * milliPerCPU / float64(period))
	return int(min(milli, mostCPUs*milliPerCPU))
}

// memoryBytes is the memory that the container is expected to use: its limit,
// else the request that kubelet has hidden in what the kernel is told of it.
func memoryBytes(r specs.LinuxResources, spec *specs.Spec, t *numa.Topology) int64 {
	if l := r.Memory.Limit; l != nil && *l > 0 && *l < maxMemory {
		return *l
	}
	for _, key := range []string{"memory.min", "memory.low"} {
		if n, ok := positive(r.Unified[key]); ok && n < maxMemory {
			return n
		}
	}
	if spec.Annotations[criType] == "" || spec.Process == nil || spec.Process.OOMScoreAdj == nil {
		return 0
	}
	score := int64(*spec.Process.OOMScoreAdj)
	if score < leastBurstableOOM || score > mostBurstableOOM {
		return 0
	}
	var capacity int64
	for _, n := range t.Nodes {
		capacity += n.Memory
	}
	return capacity / oomScale * (oomScale - score)
}

// maxMemory is more than any machine has: what is above stands for no limit.
const maxMemory = 1 << 56

// pageSize reads the size of huge pages as the kernel names its cgroup files,
// such as "2MB" or "1GB".
func pageSize(name string) (int64, bool) {
	for unit, bytes := range map[string]int64{"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30} {
		if digits, ok := strings.CutSuffix(name, unit); ok {
			n, ok := positive(digits)
			return n * bytes, ok && n <= maxMemory/bytes
		}
	}
	return 0, false
}

// bound holds a container to what the node allows of dedicated CPUs. A pod's
// first container runs nothing and needs none; its reservation refuses nothing
// either, since each container of the pod is placed for itself.
func (a *asked) bound(most int) {
	if a.sandbox {
		a.CPU, a.Memory = numa.Shared, numa.LocalMemory
		if a.Policy != numa.Unplaced {
			a.Policy = numa.BestEffort
		}
	}
	if a.CPU == numa.Dedicated && most > 0 && a.Width > most {
		a.CPU = numa.Shared
		a.missed = append(a.missed, fmt.Sprintf("%d CPUs of its own: the node allows %d", a.Width, most))
	}
}

// stay finds out whether the CPUs are to stay as they are.
func (a *asked) stay(r specs.LinuxResources, spec *specs.Spec) {
	switch {
	case a.Policy == numa.Unplaced:
		a.keep = "the policy is " + None
	case r.CPU.Cpus != "" && r.CPU.Quota != nil && *r.CPU.Quota == -1 && spec.Annotations[criType] != "":
		a.keep, a.exclusive = "kubelet gave it CPUs of its own", true
	case hasDRA(spec):
		a.keep = "a DRA driver gave it its CPUs"
	case a.CPU == numa.Shared && a.Policy == numa.BestEffort && a.Width >= a.Granted.Len():
		a.keep = "its limit needs all CPUs that it is granted"
	}
	if a.keep != "" {
		a.Policy, a.CPU = numa.Unplaced, numa.Shared
	}
}

func hasDRA(spec *specs.Spec) bool {
	if spec.Process == nil {
		return false
	}
	for _, e := range spec.Process.Env {
		if strings.HasPrefix(e, draPrefix) {
			return true
		}
	}
	return false
}

// claim is what a container that was placed so holds of the machine.
func (a asked) claim(p numa.Placement) numa.Claim {
	c := numa.Claim{
		Pod: a.Pod, Sandbox: a.sandbox, Milli: a.Milli, Width: a.Width, Bytes: a.Bytes,
		Nodes: p.Nodes, Owned: p.Owned, Idle: p.Idle, Granted: a.Granted,
	}
	if a.exclusive {
		c.Owned = a.Granted
	}
	return c
}
