package placement

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/cgroups"
	"containerd-shim-numa-v1/numa/cpuset"
)

// Reapply gives a container the CPUs that are its now: if it shares them with
// others, and those that others own have changed, or if cgroup v1 has taken
// some away. It reads the ledger once no other change of the container is under
// way: what was read before an update may lack those that own CPUs of the node
// where that has put it.
func (p *Placed) Reapply(ctx context.Context, apply Apply) {
	if p == nil {
		return
	}
	if err := p.take(ctx); err != nil {
		return // the shim ends
	}
	defer p.give()
	if p.released.Load() || p.asked.keep != "" || p.claim.Nodes.IsEmpty() {
		return
	}
	p.refresh(ctx)
	has, v1 := p.has()
	if v1 && has.IsEmpty() {
		p.unplace(ctx, "the kernel has moved its processes to the cgroup above when its last CPU went off line")
		return
	}
	cpus := p.cpus
	if p.claim.Owned.IsEmpty() {
		entries, err := p.ledger.Read()
		if err != nil {
			p.log(ctx).WithError(err).Warn("cannot tell which CPUs others own now")
			return
		}
		cpus = p.host.topology.SharedCPUs(p.claim, p.without(entries))
	}
	if !cpus.Equal(p.cpus) || v1 && !p.reachable(cpus).IsSubset(has) {
		p.reapply(ctx, cpus, apply)
	}
}

// refresh has the container see the machine as it is now.
func (p *Placed) refresh(ctx context.Context) {
	if h, err := p.placer.open(ctx); err == nil {
		p.host = h
	}
}

// has are the CPUs that a container of cgroup v1 has. The kernel drops a CPU
// that goes off line from all cpusets below the root's for good; when it is
// back, each has to be given it again, from the top. The processes of one that
// has no other are moved to the cgroup above. On v2 a CPU comes back by itself.
func (p *Placed) has() (cpus cpuset.Set, v1 bool) {
	if p.cgroup == nil || !p.cgroup.IsV1() || p.host.foreign {
		return cpuset.Set{}, false
	}
	cpus, err := p.cgroup.EffectiveCPUs()
	return cpus, err == nil // else it is ending
}

// reachable are those of some CPUs that the cgroup above has, all of them
// where that is not known.
func (p *Placed) reachable(cpus cpuset.Set) cpuset.Set {
	if p.host.foreign {
		return cpus
	}
	above, _, err := cgroups.ParentEffective(p.spec.Linux.CgroupsPath, p.systemd)
	if err != nil {
		return cpus
	}
	return cpus.Intersect(above)
}

// reapply gives the container cpus or, where the kernel refuses that because
// the cgroup above has lost some of them, the others: the next look may find
// them there again.
func (p *Placed) reapply(ctx context.Context, cpus cpuset.Set, apply Apply) {
	move := func(cpus cpuset.Set) error {
		return apply(ctx, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: cpus.String()}})
	}
	var lacking cpuset.Set
	err := move(cpus)
	if err != nil {
		if reachable := p.reachable(cpus); !reachable.IsEmpty() && !reachable.Equal(cpus) {
			lacking = cpus.Difference(reachable)
			err = move(reachable)
		}
	}
	if err != nil {
		p.log(ctx).WithError(err).Debugf("cannot move to CPUs %s", cpus)
		return
	}
	p.log(ctx).Debugf("CPUs %s, were %s: CPUs that others own, or that are online, have changed", cpus, p.cpus)
	if !lacking.IsSubset(p.lacking) {
		p.log(ctx).Warnf("it does not get CPUs %s, which the cgroup above it has lost: they have to be given to that", lacking)
	}
	p.cpus, p.lacking = cpus, lacking
	p.note()
}
