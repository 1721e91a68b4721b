package placement

import (
	"context"
	"maps"
	"reflect"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// decision is what one look at a container's request has led to.
type decision struct {
	spec      *specs.Spec
	asked     asked
	claim     numa.Claim
	placement numa.Placement
	cpus      cpuset.Set
	mems      cpuset.Set
}

func (p *Placed) decision() decision {
	return decision{p.spec, p.asked, p.claim, p.placement, p.cpus, p.mems}
}

func (p *Placed) restore(d decision) {
	p.spec, p.asked, p.claim, p.placement, p.cpus, p.mems = d.spec, d.asked, d.claim, d.placement, d.cpus, d.mems
}

// Update narrows what a request for other limits gives the container, enters
// what it asks for now, and applies it. The error is that of apply; the ledger
// then is as it was before. Nothing else fails: whoever resizes a container
// that runs is better served by a worse place than by none.
func (p *Placed) Update(ctx context.Context, r *specs.LinuxResources, apply Apply) error {
	if p == nil {
		return apply(ctx, r)
	}
	if err := p.take(ctx); err != nil {
		return err
	}
	defer p.give()
	if p.released.Load() || p.fault != "" {
		return apply(ctx, r)
	}
	before := p.decision()
	p.spec = merged(p.spec, r)
	entered := false
	if p.behind || !reflect.DeepEqual(p.spec.Linux.Resources, before.spec.Linux.Resources) {
		if err := p.reconsider(ctx); err != nil {
			p.placer.count(ctx, err)
			spec := p.spec
			p.restore(before)
			if err := p.confine(ctx, r, apply); err != nil {
				return err
			}
			p.spec, p.behind = spec, true
			return nil
		}
		entered = true
	}
	if err := apply(ctx, p.narrowed(r, before)); err != nil {
		p.restore(before)
		if entered {
			p.enter(ctx, before.claim)
		}
		return err
	}
	if entered {
		p.behind = false
		if !before.claim.Owned.IsSubset(p.claim.Owned) || !before.claim.Idle.IsSubset(p.claim.Idle) {
			p.enter(ctx, p.claim)
		}
		p.note()
		p.tell(ctx)
	}
	if !p.mems.Equal(before.mems) {
		p.rewatchMemory(apply)
	}
	return nil
}

// reconsider places the container again, where it is if possible. In the ledger
// it has CPUs that were its own as well, until it has let go of them.
func (p *Placed) reconsider(ctx context.Context) error {
	p.refresh(ctx)
	m, err := p.host.look(p.spec, p.systemd)
	if err != nil {
		return err
	}
	a, err := ask(p.spec, p.settings, m)
	if err != nil {
		return failure{"the spec", err}
	}
	if a.Policy == numa.Restricted || a.Policy == numa.SingleNode {
		a.Policy = numa.BestEffort
	}
	a.PreviousNodes, a.PreviousCPUs = p.claim.Nodes, p.cpus
	claim, placement, err := p.host.choose(ctx, p.bundle, &a, p.decision())
	if err != nil {
		return err
	}
	p.asked, p.claim, p.placement = a, claim, placement
	p.settle(m)
	return nil
}

// narrowed is r with the CPUs and memory nodes that are the container's now.
// What r does not name is named only if it has changed.
func (p *Placed) narrowed(r *specs.LinuxResources, before decision) *specs.LinuxResources {
	var given specs.LinuxCPU
	if r.CPU != nil {
		given = *r.CPU
	}
	cpu := given
	switch {
	case p.asked.keep != "" && given.Cpus != "": // as it was given
	case given.Cpus != "", !p.cpus.Equal(before.cpus):
		cpu.Cpus = p.cpus.String()
	}
	switch bound := p.bound(); {
	case !bound.IsEmpty() && (given.Mems != "" || !bound.Equal(before.mems)):
		cpu.Mems = bound.String()
	case bound.IsEmpty() && given.Mems == "" && before.asked.Memory == numa.BindMemory && !before.mems.IsEmpty():
		cpu.Mems = p.asked.Mems.String()
	}
	if cpu == given {
		return r
	}
	out := *r
	out.CPU = &cpu
	return &out
}

// confine applies r with its CPUs and memory nodes held within those in force,
// where that leaves any: what can be done without the ledger. It holds later
// changes of what is left by others within what r grants as well.
func (p *Placed) confine(ctx context.Context, r *specs.LinuxResources, apply Apply) error {
	if r.CPU == nil || p.asked.keep != "" {
		return apply(ctx, r)
	}
	given, err := cpuset.Parse(r.CPU.Cpus)
	if err != nil {
		return apply(ctx, r)
	}
	out, cpu := *r, *r.CPU
	out.CPU = &cpu
	cpus, granted := p.cpus, p.claim.Granted
	if !given.IsEmpty() {
		cpus, granted = within(given, cpus), within(given, granted)
		cpu.Cpus = cpus.String()
	}
	if bound := p.bound(); cpu.Mems != "" && !bound.IsEmpty() {
		cpu.Mems = bound.String()
	}
	if err := apply(ctx, &out); err != nil {
		return err
	}
	p.cpus, p.claim.Granted = cpus, granted
	p.note()
	return nil
}

// within is what a set has in common with bounds, or all of it if that is
// nothing.
func within(set, bounds cpuset.Set) cpuset.Set {
	if common := set.Intersect(bounds); !common.IsEmpty() {
		return common
	}
	return set
}

// merged is what a container asks for after an update: as an engine does it,
// with zero standing for "as it is".
func merged(spec *specs.Spec, r *specs.LinuxResources) *specs.Spec {
	s, linux := *spec, *spec.Linux
	res := *linux.Resources
	cpu, memory := *res.CPU, *res.Memory
	if c := r.CPU; c != nil {
		if c.Shares != nil {
			cpu.Shares = c.Shares
		}
		if c.Quota != nil && *c.Quota != 0 {
			cpu.Quota = c.Quota
		}
		if c.Period != nil && *c.Period != 0 {
			cpu.Period = c.Period
		}
		if c.Cpus != "" {
			cpu.Cpus = c.Cpus
		}
		if c.Mems != "" {
			cpu.Mems = c.Mems
		}
	}
	if r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit != 0 {
		memory.Limit = r.Memory.Limit
	}
	if len(r.HugepageLimits) > 0 {
		res.HugepageLimits = r.HugepageLimits
	}
	if len(r.Unified) > 0 {
		unified := maps.Clone(res.Unified)
		if unified == nil {
			unified = map[string]string{}
		}
		maps.Copy(unified, r.Unified)
		res.Unified = unified
	}
	res.CPU, res.Memory = &cpu, &memory
	linux.Resources, s.Linux = &res, &linux
	return &s
}
