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
	cpus := p.cpus
	if p.claim.Owned.IsEmpty() {
		entries, err := p.ledger.Read()
		if err != nil {
			p.log(ctx).WithError(err).Warn("cannot tell which CPUs others own now")
			return
		}
		cpus = p.host.topology.SharedCPUs(p.claim, p.without(entries))
	}
	if !cpus.Equal(p.cpus) || p.lost() {
		p.reapply(ctx, cpus, apply)
	}
}

// refresh has the container see the machine as it is now.
func (p *Placed) refresh(ctx context.Context) {
	if h, err := p.placer.open(ctx); err == nil {
		p.host = h
	}
}

// lost tells whether the kernel has taken CPUs from the container that the
// cgroup above it has. cgroup v1 drops a CPU that goes off line from all
// cpusets below the root's for good; when it is back, each has to be given it
// again, from the top. On v2 they have it back by themselves.
func (p *Placed) lost() bool {
	if p.cgroup == nil || !p.cgroup.IsV1() || p.host.foreign {
		return false
	}
	has, err := p.cgroup.EffectiveCPUs()
	if err != nil {
		return false // it is ending
	}
	return !p.reachable(p.cpus).IsSubset(has)
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
