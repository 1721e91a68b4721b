package placement

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/numa/memory"
)

// policy is the mode of set_mempolicy(2) for the memory that a container asks
// for on some nodes; ok is false where a cpuset does it, or nothing.
func policy(p numa.MemoryPolicy, nodes cpuset.Set) (mode memory.Mode, ok bool) {
	switch {
	case p == numa.InterleaveMemory:
		return memory.Interleave, true
	case p == numa.PreferredMemory && nodes.Len() == 1:
		return memory.Preferred, true
	case p == numa.PreferredMemory:
		return memory.PreferredMany, true
	}
	return 0, false
}

// editMemory writes where memory is to come from into the spec. A policy that
// the kernel would refuse, and with it the container, is left out.
func (p *Placed) editMemory(spec *specs.Spec) {
	if p.mems.IsEmpty() {
		return
	}
	mode, ok := policy(p.asked.Memory, p.mems)
	if !ok {
		if !p.bound().IsEmpty() {
			cpuOf(spec).Mems = p.mems.String()
		}
		return
	}
	if err := memory.Probe(mode, p.mems); err != nil {
		p.asked.missed = append(p.asked.missed, err.Error())
		return
	}
	spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MemoryPolicyModeType(mode.String()), Nodes: p.mems.String()}
}

// bound are the nodes that cpuset.mems is to have, empty where the placement
// does not say.
func (p *Placed) bound() cpuset.Set {
	if p.asked.Memory != numa.BindMemory || p.asked.keep != "" {
		return cpuset.Set{}
	}
	return p.mems
}

// watchMemory has a goroutine widen a container's memory nodes when those that
// it is bound to run short. Release ends it.
func (p *Placed) watchMemory(apply Apply) {
	if !p.settings.WidenMemory || p.released.Load() || p.unwatch != nil || p.bound().IsEmpty() || p.asked.Mems.IsSubset(p.mems) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	p.unwatch = func() {
		cancel()
		<-done
	}
	sysfs, nodes := p.host.sysfs, p.mems
	go func() {
		defer close(done)
		if err := memory.AwaitShortage(ctx, sysfs, nodes); err != nil {
			if ctx.Err() == nil {
				p.log(ctx).WithError(err).Warn("its memory nodes are not watched")
			}
			return
		}
		p.widen(ctx, apply)
	}()
}

// rewatchMemory does so for a container whose memory nodes are others now.
func (p *Placed) rewatchMemory(apply Apply) {
	if p.unwatch != nil {
		p.unwatch()
		p.unwatch = nil
	}
	p.watchMemory(apply)
}

// widen lets a container have memory from all nodes that it is granted. What
// it has stays where it is.
func (p *Placed) widen(ctx context.Context, apply Apply) {
	if err := p.take(ctx); err != nil {
		return // it is being released
	}
	defer func() { <-p.busy }() // give would wait for this goroutine
	if p.released.Load() || p.bound().IsEmpty() {
		return
	}
	err := apply(ctx, &specs.LinuxResources{CPU: &specs.LinuxCPU{Mems: p.asked.Mems.String()}})
	if err != nil {
		p.log(ctx).WithError(err).Warnf("memory nodes %s are short, and it cannot have others", p.mems)
		return
	}
	p.log(ctx).Warnf("memory nodes %s are short: it may have memory of nodes %s", p.mems, p.asked.Mems)
	p.mems, p.widened = p.asked.Mems, true
	p.note()
}
